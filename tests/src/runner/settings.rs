//! What job variables set: `GIT_STRATEGY`, the numbers of attempts and the like, with the runner's defaults.

use super::flags::Flags;
use super::go;
use super::variables::Variables;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GitStrategy {
    Clone,
    Fetch,
    None,
    Empty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Submodules {
    /// A value the runner does not know: get_sources fails.
    Invalid,
    None,
    Normal,
    Recursive,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) debug_trace: bool,
    pub(crate) clone_path: String,
    pub(crate) strategy: GitStrategy,
    pub(crate) checkout: bool,
    pub(crate) submodules: Submodules,
    pub(crate) submodule_paths: Vec<String>,
    pub(crate) submodule_depth: i64,
    pub(crate) submodule_update_flags: Vec<String>,
    pub(crate) submodule_force_https: bool,
    pub(crate) clean_flags: Vec<String>,
    pub(crate) clone_flags: Vec<String>,
    pub(crate) fetch_flags: Vec<String>,
    pub(crate) lfs_skip_smudge: bool,
    pub(crate) get_sources_attempts: i64,
    pub(crate) download_attempts: i64,
    pub(crate) restore_cache_attempts: i64,
    pub(crate) after_script_ignore_errors: bool,
    pub(crate) cache_request_timeout: i64,
    pub(crate) flags: Flags,
    /// What the runner warns about.
    pub(crate) complaints: Vec<String>,
}

/// What the settings need besides the variables.
pub(crate) struct Defaults {
    pub(crate) allow_git_fetch: bool,
    pub(crate) depth: i64,
    pub(crate) debug_trace_disabled: bool,
}

impl Settings {
    pub(crate) fn read(
        variables: &Variables,
        defaults: &Defaults,
        configured: impl Fn(&str) -> Option<bool>,
    ) -> Settings {
        let mut complaints = Vec::new();
        let mut reader = Reader { variables, complaints: &mut complaints };
        let mut settings = Settings {
            debug_trace: reader.boolean("CI_DEBUG_TRACE", false),
            clone_path: variables.value("GIT_CLONE_PATH"),
            strategy: reader.strategy(defaults.allow_git_fetch),
            checkout: reader.boolean("GIT_CHECKOUT", true),
            submodules: reader.submodules(),
            submodule_paths: reader.words("GIT_SUBMODULE_PATHS", &[]),
            submodule_depth: reader.number("GIT_SUBMODULE_DEPTH", defaults.depth),
            submodule_update_flags: reader.flags("GIT_SUBMODULE_UPDATE_FLAGS", &[]),
            submodule_force_https: reader.boolean("GIT_SUBMODULE_FORCE_HTTPS", false),
            clean_flags: reader.flags("GIT_CLEAN_FLAGS", &["-ffdx"]),
            clone_flags: reader.flags("GIT_CLONE_EXTRA_FLAGS", &[]),
            fetch_flags: reader.flags("GIT_FETCH_EXTRA_FLAGS", &["--prune", "--quiet"]),
            lfs_skip_smudge: reader.boolean("GIT_LFS_SKIP_SMUDGE", false),
            get_sources_attempts: reader.attempts("GET_SOURCES_ATTEMPTS"),
            download_attempts: reader.attempts("ARTIFACT_DOWNLOAD_ATTEMPTS"),
            restore_cache_attempts: reader.attempts("RESTORE_CACHE_ATTEMPTS"),
            after_script_ignore_errors: reader.boolean("AFTER_SCRIPT_IGNORE_ERRORS", true),
            cache_request_timeout: reader.number("CACHE_REQUEST_TIMEOUT", 10),
            flags: Flags::resolve(configured, |name| go::parse_bool(&variables.get(name))),
            complaints: Vec::new(),
        };
        if defaults.debug_trace_disabled && settings.debug_trace {
            complaints.push("CI_DEBUG_TRACE: usage is disabled on this Runner".into());
            settings.debug_trace = false;
        }
        settings.complaints = complaints;
        settings
    }

    /// `none` and `empty` have no checkout and no submodules.
    pub(crate) fn without_repository(&self) -> bool {
        matches!(self.strategy, GitStrategy::None | GitStrategy::Empty)
    }

    pub(crate) fn checkout(&self) -> bool {
        self.checkout && !self.without_repository()
    }

    pub(crate) fn submodules(&self) -> Submodules {
        if self.without_repository() { Submodules::None } else { self.submodules }
    }

    pub(crate) fn has_submodules(&self) -> bool {
        matches!(self.submodules(), Submodules::Normal | Submodules::Recursive)
    }
}

struct Reader<'a> {
    variables: &'a Variables,
    complaints: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn boolean(&mut self, name: &str, default: bool) -> bool {
        let text = self.variables.value(name);
        if text.is_empty() {
            return default;
        }
        go::parse_bool(&text).unwrap_or_else(|| {
            self.complaints.push(format!(
                "{name}: expected bool got {}, using default value: {default}",
                go::quote(&text)
            ));
            default
        })
    }

    fn number(&mut self, name: &str, default: i64) -> i64 {
        let text = self.variables.value(name);
        if text.is_empty() {
            return default;
        }
        go::atoi(&text).unwrap_or_else(|| {
            self.complaints.push(format!(
                "{name}: expected int got {}, using default value: {default}",
                go::quote(&text)
            ));
            default
        })
    }

    fn attempts(&mut self, name: &str) -> i64 {
        let wanted = self.number(name, 1);
        let clamped = wanted.clamp(1, 10);
        if clamped != wanted {
            self.complaints
                .push(format!("{name}: number of attempts out of the range [1, 10], clamping to: {clamped}"));
        }
        clamped
    }

    fn words(&self, name: &str, default: &[&str]) -> Vec<String> {
        let text = self.variables.value(name);
        if text.is_empty() {
            return default.iter().map(|&word| word.to_owned()).collect();
        }
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// As words, with `none` for an empty list.
    fn flags(&self, name: &str, default: &[&str]) -> Vec<String> {
        if self.variables.value(name) == "none" { Vec::new() } else { self.words(name, default) }
    }

    fn strategy(&mut self, allow_fetch: bool) -> GitStrategy {
        let (default, word) =
            if allow_fetch { (GitStrategy::Fetch, "fetch") } else { (GitStrategy::Clone, "clone") };
        match self.variables.value("GIT_STRATEGY").as_str() {
            "" => default,
            "clone" => GitStrategy::Clone,
            "fetch" => GitStrategy::Fetch,
            "none" => GitStrategy::None,
            "empty" => GitStrategy::Empty,
            other => {
                self.complaints.push(format!(
                    "GIT_STRATEGY: expected either 'clone', 'fetch', 'none' or 'empty' got {}, using default value '{word}'",
                    go::quote(other)
                ));
                default
            }
        }
    }

    fn submodules(&mut self) -> Submodules {
        match self.variables.value("GIT_SUBMODULE_STRATEGY").as_str() {
            "" | "none" => Submodules::None,
            "normal" => Submodules::Normal,
            "recursive" => Submodules::Recursive,
            other => {
                self.complaints.push(format!(
                    "GIT_SUBMODULE_STRATEGY: expected either 'normal', 'recursive' or 'none' got {}",
                    go::quote(other)
                ));
                Submodules::Invalid
            }
        }
    }
}

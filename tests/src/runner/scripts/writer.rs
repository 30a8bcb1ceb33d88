//! Writes the lines of a script, and the frame around them.

use super::quote;
use crate::gitlab::Variable;
use crate::runner::build::Build;
use crate::runner::go;
use crate::runner::version::Frame;

const GREEN: &str = "\x1b[32;1m";
const YELLOW: &str = "\x1b[0;33m";
const RESET: &str = "\x1b[0;m";

/// The lines of one script.
pub(crate) struct Writer<'a> {
    build: &'a Build,
    text: String,
    indent: usize,
}

/// Double quotes and nothing else: the shell expands what is inside.
fn expanding(word: &str) -> String {
    format!("\"{word}\"")
}

impl<'a> Writer<'a> {
    pub(crate) fn new(build: &'a Build) -> Writer<'a> {
        Writer { build, text: String::new(), indent: 0 }
    }

    pub(crate) fn escape(&self, word: &str) -> String {
        if self.build.is_on("FF_POSIXLY_CORRECT_ESCAPES") { quote::posix(word) } else { quote::ansi_c(word) }
    }

    pub(crate) fn line(&mut self, text: &str) {
        self.text.push_str(&"  ".repeat(self.indent));
        self.text.push_str(text);
        self.text.push('\n');
    }

    pub(crate) fn check_errors(&mut self) {
        if self.build.is_on("FF_ENABLE_BASH_EXIT_CODE_CHECK") {
            self.line(
                "_runner_exit_code=$?; if [ $_runner_exit_code -ne 0 ]; then exit $_runner_exit_code; fi",
            );
        }
    }

    fn words(&self, words: &[&str], quote: impl Fn(&str) -> String) -> String {
        let (command, arguments) = words.split_first().unwrap_or((&"", &[]));
        let quoted = arguments.iter().map(|word| quote(word));
        std::iter::once(self.escape(command)).chain(quoted).collect::<Vec<_>>().join(" ")
    }

    /// A command whose arguments the shell takes as they are.
    pub(crate) fn command(&mut self, words: &[&str]) {
        let line = self.words(words, |word| self.escape(word));
        self.line(&line);
        self.check_errors();
    }

    /// A command whose arguments the shell expands.
    pub(crate) fn command_expanding(&mut self, words: &[&str]) {
        let line = self.words(words, expanding);
        self.line(&line);
        self.check_errors();
    }

    /// `echo INPUT | COMMAND`, whose failure does not matter.
    pub(crate) fn best_effort_with_input(&mut self, input: &str, words: &[&str]) {
        let producer = self.words(&["echo", input], |word| self.escape(word));
        let consumer = self.words(words, |word| self.escape(word));
        self.line(&format!("{producer} | {consumer} || true"));
    }

    fn open_if(&mut self, condition: &str) {
        self.line(condition);
        self.indent += 1;
    }

    pub(crate) fn if_command(&mut self, words: &[&str]) {
        let line = self.words(words, |word| self.escape(word));
        self.open_if(&format!("if {line} >/dev/null 2>&1 ; then"));
    }

    pub(crate) fn if_command_with_output(&mut self, words: &[&str]) {
        let line = self.words(words, |word| self.escape(word));
        self.open_if(&format!("if {line} ; then"));
    }

    pub(crate) fn if_command_expanding(&mut self, words: &[&str]) {
        let line = self.words(words, expanding);
        self.open_if(&format!("if {line} ; then"));
    }

    /// `test`: `-d`, `-e` or `-r`.
    pub(crate) fn if_path(&mut self, test: &str, path: &str) {
        self.open_if(&format!("if [ {test} {} ]; then", go::quote(path)));
    }

    /// Whether git is at least this old.
    pub(crate) fn if_git_at_least(&mut self, version: &str) {
        self.line(r#"current_ver="$(git version|cut -d ' ' -f 3)""#);
        self.line(&format!("required_ver={}", go::quote(version)));
        self.line(
            r#"minimum_ver="$(printf '%s\n%s' "$required_ver" "$current_ver" | sort -t '.' -k 1,1n -k 2,2n -k 3,3n | sed -n '1p')""#,
        );
        self.line(r#"if [ "$minimum_ver" = "$required_ver" ]; then"#);
        let text = format!("{RESET}Git version at least {}", go::quote(version));
        let line = format!("echo {}", self.escape(&text));
        self.line(&line);
        self.indent += 1;
    }

    pub(crate) fn otherwise(&mut self) {
        self.indent = self.indent.saturating_sub(1);
        self.open_if("else");
    }

    pub(crate) fn end_if(&mut self) {
        self.indent = self.indent.saturating_sub(1);
        self.line("fi");
    }

    fn colored(&mut self, color: &str, text: &str) {
        let line = format!("echo {}", self.escape(&format!("{color}{text}{RESET}")));
        self.line(&line);
    }

    pub(crate) fn notice(&mut self, text: &str) {
        self.colored(GREEN, text);
    }

    pub(crate) fn warning(&mut self, text: &str) {
        self.colored(YELLOW, text);
    }

    pub(crate) fn empty_line(&mut self) {
        self.line("echo");
    }

    pub(crate) fn print(&mut self, text: &str) {
        let line = format!("echo {}", self.escape(&format!("{RESET}{text}")));
        self.line(&line);
    }

    pub(crate) fn cd(&mut self, path: &str) {
        self.command(&["cd", path]);
    }

    pub(crate) fn make_dir(&mut self, path: &str) {
        self.command(&["mkdir", "-p", path]);
    }

    pub(crate) fn remove_file(&mut self, path: &str) {
        self.command_expanding(&["rm", "-f", path]);
    }

    pub(crate) fn remove_dir(&mut self, path: &str) {
        self.if_path("-d", path);
        self.command_expanding(&["chmod", "-R", "u+rwX", path]);
        self.end_if();
        self.command_expanding(&["rm", "-r", "-f", path]);
    }

    fn remove_found(&mut self, path: &str, name: &str, how: &str) {
        self.if_path("-d", path);
        self.line(&format!(
            "et='+' ; find /dev/null -exec true {{}} + 2>/dev/null || et=';' ; find {} -name {} {how} {{}} \"${{et}}\"",
            go::quote(path),
            go::quote(name)
        ));
        self.end_if();
    }

    pub(crate) fn remove_files_below(&mut self, path: &str, name: &str) {
        self.remove_found(path, name, "-type f -exec rm -f");
    }

    pub(crate) fn remove_dirs_below(&mut self, path: &str, name: &str) {
        self.remove_found(path, name, "-type d -depth -exec rm -rf --");
    }

    /// Exports a variable; a file variable is written first.
    pub(crate) fn variable(&mut self, variable: &Variable) {
        let key = self.escape(&variable.key);
        if variable.file {
            let path = self.build.tmp_file(&variable.key);
            self.line(&format!("mkdir -p {}", go::quote(&self.build.tmp_dir())));
            let content = self.escape(&variable.value);
            self.line(&format!("printf '%s' {content} > {}", go::quote(&path)));
            self.line(&format!("export {key}={}", go::quote(&path)));
            return;
        }
        let below_tmp = variable.value.starts_with(&self.build.tmp_dir());
        let value = if below_tmp && !variable.value.starts_with('/') && !variable.value.starts_with("$PWD") {
            go::join(&["$PWD", &variable.value])
        } else {
            variable.value.clone()
        };
        let value = self.escape(&value);
        self.line(&format!("export {key}={value}"));
    }

    pub(crate) fn export(&mut self, key: &str, value: &str) {
        self.variable(&Variable { key: key.into(), value: value.into(), ..Variable::default() });
    }

    /// Exports a value that the shell expands.
    pub(crate) fn export_expanding(&mut self, key: &str, value: &str) {
        let key = self.escape(key);
        self.line(&format!("export {key}={}", expanding(value)));
    }

    /// Takes the variables of `$GITLAB_ENV` in.
    pub(crate) fn source_env(&mut self, path: &str) {
        self.line(&format!("mkdir -p {}", go::quote(&self.build.tmp_dir())));
        self.line(&format!("touch {}", go::quote(path)));
        self.line(&format!("while read -r line; do export \"$line\"; done < {}", go::quote(path)));
    }

    /// The whole script.
    pub(crate) fn finish(self, shell: &str) -> String {
        let body = self.escape(&self.text);
        let frame = self.build.version.frame();
        let mut script = format!("#!/usr/bin/env {shell}\n\n");
        script.push_str(match frame {
            Frame::WithoutTrap => "",
            Frame::UnquotedTrap => "trap exit 1 TERM\n\n",
            Frame::Subshell => "trap 'exit 1' TERM\n\n",
        });
        if self.build.settings().debug_trace {
            script.push_str("set -o xtrace\n");
        }
        script.push_str(match frame {
            Frame::WithoutTrap | Frame::UnquotedTrap => {
                "if set -o | grep pipefail > /dev/null; then set -o pipefail; fi; set -o errexit\n"
            }
            Frame::Subshell => {
                "case \"$(set -o)\" in *\"pipefail\"*) set -o pipefail;; esac; set -o errexit\n"
            }
        });
        script.push_str("set +o noclobber\n");
        let legacy = frame != Frame::Subshell || self.build.is_on("FF_USE_LEGACY_BASH_EVAL");
        if legacy {
            script.push_str(&format!(": | eval {body}\n"));
        } else {
            script.push_str(&format!("(trap 'exit 1' TERM; eval {body}) < /dev/null\n"));
        }
        script.push_str("exit 0\n");
        script
    }
}

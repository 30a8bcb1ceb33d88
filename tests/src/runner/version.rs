//! Which GitLab Runner is stood in for. What differs between versions is what a driver meets: the frame around
//! the scripts, the name of the script file and the runner's own variables. The commands inside are those of 19.4.

/// A version of GitLab Runner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// 17.3: no trap in the frame, script file `script.` with a dot.
    V17_3,
    /// 17.4, and its frame up to 18.11.3: `trap exit 1 TERM`, no `BUILD_EXIT_CODE_FILE` before 17.9.
    V17_4,
    /// 19.4: a subshell with its own trap.
    #[default]
    V19_4,
}

/// The text around the eval string of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    WithoutTrap,
    UnquotedTrap,
    Subshell,
}

impl Version {
    /// As in `CI_RUNNER_VERSION`.
    pub fn number(self) -> &'static str {
        match self {
            Version::V17_3 => "17.3.0",
            Version::V17_4 => "17.4.0",
            Version::V19_4 => "19.4.0",
        }
    }

    /// As in `CI_RUNNER_REVISION`.
    pub fn revision(self) -> &'static str {
        match self {
            Version::V17_3 => "071ba93d",
            Version::V17_4 => "b92ee590",
            Version::V19_4 => "d79f3e7b",
        }
    }

    pub(crate) fn frame(self) -> Frame {
        match self {
            Version::V17_3 => Frame::WithoutTrap,
            Version::V17_4 => Frame::UnquotedTrap,
            Version::V19_4 => Frame::Subshell,
        }
    }

    /// The name of the script file for bash and sh.
    pub(crate) fn script_file(self) -> &'static str {
        match self {
            Version::V17_3 => "script.",
            Version::V17_4 | Version::V19_4 => "script",
        }
    }

    pub(crate) fn has_exit_code_file(self) -> bool {
        self == Version::V19_4
    }

    /// The old ones put the path of their configuration into their own environment.
    pub(crate) fn exports_config_file(self) -> bool {
        self != Version::V19_4
    }
}

//! Every key: table, name, type, default, status, meaning. This file is a table.

use std::fmt::{self, Write};

use super::key::{Fallback, Key, Kind, Status, Word};
use Fallback::{Nothing, Off, On, Required};
use Kind::{Duration, List, Number, Prose, Switch, Text, Word as Words};

/// Every key, table by table.
#[must_use]
pub fn keys() -> &'static [Key] {
    KEYS
}

/// The table for the documentation, as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::new();
    let mut table = "";
    for key in KEYS {
        if key.table != table {
            table = key.table;
            append(
                &mut text,
                format_args!("\n### `[{table}]`\n\n| key | value | default | meaning |\n|---|---|---|---|\n"),
            );
        }
        let status = match key.status {
            Status::Built => String::new(),
            Status::NotYet(what) => format!(" **Not built yet: {what}.**"),
        };
        append(
            &mut text,
            format_args!("| `{}` | {} | {} | {}{status} |\n", key.name, key.kind, key.default, key.meaning),
        );
    }
    text.push_str(LIMITS);
    text
}

/// The tables of [`super::limits`], whose keys are a profile's.
const LIMITS: &str = "
### `[sandbox.site]` and `[sandbox.user]`

Limits of all jobs of the host together, and of all jobs of one user together. The keys are those of a profile's `[job]`
that limit a control group, from `MemoryMin` to `HugeTLBMax` ([limits.md](limits.md)); `prefer = [\"KEY\"]` lets jobs run
where the host cannot give one. `[sandbox.user.group.NAME]` sets keys anew for members of a group (of two groups that
set one key, the one that is written later), `[sandbox.user.account.NAME]` for one account.

`[sandbox.user]` and the tables below it have two keys more ([limits.md](limits.md)):

| key | value | default | meaning |
|---|---|---|---|
| `MaxJobsPerUser` | a whole number from 1 on, or `\"infinity\"` | `\"infinity\"` | how many jobs of one user run at the same time on this host; one above that waits in `prepare` |
| `MaxJobsWaitSec` | seconds, or a time as systemd writes it: `\"90s\"`, `\"1h 30min\"`, `\"infinity\"` | `\"55min\"` | how long it waits, and never longer than its own time limit; then it fails. `0`: it does not wait |
";

fn append(text: &mut String, line: fmt::Arguments<'_>) {
    text.write_fmt(line).expect("writing into a String does not fail");
}

const fn built(
    table: &'static str,
    name: &'static str,
    kind: Kind,
    default: Fallback,
    meaning: &'static str,
) -> Key {
    Key { table, name, kind, default, status: Status::Built, meaning }
}

const fn later(
    what: &'static str,
    table: &'static str,
    name: &'static str,
    kind: Kind,
    default: Fallback,
    meaning: &'static str,
) -> Key {
    Key { table, name, kind, default, status: Status::NotYet(what), meaning }
}

const fn now(text: &'static str) -> Word {
    Word { text, status: Status::Built }
}

const fn not_yet(text: &'static str, what: &'static str) -> Word {
    Word { text, status: Status::NotYet(what) }
}

const BATCH: &str = "batch executors";
const LIMITED: &str = "limited build directories";
const STATIC: &str = "static build directories";
const CONTAINERS: &str = "containers as run mechanism";
const RUNAS: &str = "the RunAs script";
const SECCOMP: &str = "seccomp rules in [auth]; the profile of [sandbox] brings its own";
const REMOTE: &str = "logging to another host";
const OBSERVE: &str = "modes that only observe";

const EXECUTORS: &[Word] = &[
    now("shell"),
    not_yet("slurm", BATCH),
    not_yet("sbatch", BATCH),
    not_yet("pbs", BATCH),
    not_yet("lsf", BATCH),
    not_yet("bsub", BATCH),
    not_yet("flux", BATCH),
    not_yet("cobalt", BATCH),
    not_yet("qsub", BATCH),
];
const DOWNSCOPES: &[Word] =
    &[now("setuid"), now("none"), not_yet("sudo", "sudo as downscope"), not_yet("su", "su as downscope")];
const LEVELS: &[Word] = &[now("error"), now("warn"), now("info"), now("debug")];
const MODES: &[Word] = &[now("enforce"), not_yet("observe", OBSERVE), not_yet("warn", OBSERVE)];

/// The tables whose keys Jacamar does not publish: a key in them is unknown unless it is `false`.
pub(super) const TABLES_WITHOUT_KEYS: [&str; 2] = ["general.charliecloud", "feature_flags"];

const G: &str = "general";
const P: &str = "general.podman";
const A: &str = "auth";
const R: &str = "auth.runas";
const L: &str = "auth.logging";
const S: &str = "auth.seccomp";
const B: &str = "batch";
const X: &str = "sandbox";

const KEYS: &[Key] = &[
    built(G, "executor", Words(EXECUTORS), Required("\"shell\""), "where the job's script runs"),
    built(
        G,
        "data_dir",
        Text,
        Required("\"$HOME\""),
        "base of all files of jobs: `$HOME` or `$HOME/...`, to which `.jacamar-ci` is added, or an absolute path, to \
         which the account is added",
    ),
    built(
        G,
        "gitlab_server",
        Text,
        Required("\"https://gitlab.example.com\""),
        "the GitLab server; never taken from the job",
    ),
    built(
        G,
        "retain_logs",
        Switch,
        Off,
        "keep the executor's files after the job (the shell executor has none)",
    ),
    built(G, "name", Text, Nothing("none"), "a label for the audit log"),
    built(
        G,
        "kill_timeout",
        Duration,
        Fallback::Duration("120s"),
        "time between SIGTERM and SIGKILL; at most 24h",
    ),
    built(
        G,
        "shell_path",
        Text,
        Nothing("`/bin/bash`"),
        "absolute path of the Bash that starts a job's scripts",
    ),
    built(G, "job_message", Prose, Nothing("none"), "text at the beginning of each job log"),
    built(
        G,
        "support_contact",
        Text,
        Nothing("none"),
        "whom a refused CI user asks: a name, an address, a page",
    ),
    built(
        G,
        "tls-ca-file",
        Text,
        Nothing("the system's"),
        "absolute path of the certificates that vouch for `gitlab_server`",
    ),
    built(
        G,
        "https_proxy",
        Text,
        Nothing("no proxy"),
        "the way to `gitlab_server`: `http://host:port` or `https://host:port`, no password",
    ),
    built(
        G,
        "jwt_env_variable",
        Text,
        Fallback::Text("CI_JOB_JWT"),
        "the job variable that holds the ID token",
    ),
    built(
        G,
        "user_bash_env",
        List,
        Nothing("none"),
        "`NAME=value` pairs for the environment of the login shell",
    ),
    later(
        "build directories of the job's choice",
        G,
        "custom_build_dir",
        Switch,
        Off,
        "obey CUSTOM_CI_BUILDS_DIR",
    ),
    later(
        "directories that the group can read",
        G,
        "group_permissions",
        Switch,
        Off,
        "mode 0750 instead of 0700",
    ),
    later(
        "keeping tokens off the command line",
        G,
        "unrestricted_cmd_line",
        Switch,
        Off,
        "leave tokens on the command lines of the runner's scripts",
    ),
    built(
        G,
        "set_stack_size",
        Switch,
        Off,
        "raise the job's soft stack limit to the hard one; a profile with `LimitSTACK` says more",
    ),
    later(STATIC, G, "static_builds_dir", Switch, Off, "one directory per job, removed by age"),
    later(
        STATIC,
        G,
        "static_min_days",
        Number,
        Fallback::Number(7),
        "age in days before such a directory is removed",
    ),
    later(LIMITED, G, "limit_build_dir", Switch, Off, "a small set of build directories per project"),
    later(LIMITED, G, "max_build_dir", Number, Fallback::Number(0), "how many of them may stay; 0: no limit"),
    later(LIMITED, G, "uncap_build_dir_cleanup", Switch, Off, "clean more than one of them per job"),
    later(LIMITED, G, "file_lock_debug", Switch, Off, "log the locks on them"),
    later(LIMITED, G, "user_enabled_limit", Switch, Off, "only for users who set JACAMAR_LIMITED_DIR"),
    later(CONTAINERS, G, "run_mechanism", Text, Nothing("none"), "`podman` or `charliecloud`"),
    later(CONTAINERS, P, "application_path", Text, Fallback::Text("/usr/bin/podman"), "the program"),
    later(CONTAINERS, P, "runner_image", Text, Nothing("none"), "image for the runner's own steps"),
    later(CONTAINERS, P, "runner_options", List, Nothing("none"), "options for the runner's own steps"),
    later(
        CONTAINERS,
        P,
        "runner_entry_point",
        List,
        Nothing("`bash -l -c`"),
        "entry point for the runner's own steps",
    ),
    later(CONTAINERS, P, "default_image", Text, Nothing("none"), "image of jobs that name none"),
    later(CONTAINERS, P, "custom_options", List, Nothing("none"), "options for the job's steps"),
    later(
        CONTAINERS,
        P,
        "user_entry_point",
        List,
        Nothing("`bash -l -c`"),
        "entry point for the job's steps",
    ),
    built(A, "downscope", Words(DOWNSCOPES), Required("\"setuid\""), "how the job becomes its user"),
    built(
        A,
        "jacamar_path",
        Text,
        Nothing("`jacamar` beside `jacamar-auth`"),
        "absolute path of the program on the user's side",
    ),
    built(A, "jwt_issuer", Text, Nothing("`gitlab_server`"), "issuer that the ID token must name"),
    built(A, "jwt_required_aud", Text, Nothing("any audience"), "audience that the ID token must name"),
    built(
        A,
        "jwt_exp_delay",
        Duration,
        Fallback::Duration("15m"),
        "at most 1h; without effect: `cleanup` reads no token",
    ),
    built(A, "runner_id", Number, Nothing("not compared"), "the runner that the ID token must name"),
    built(A, "minimum_uid", Number, Nothing("UID_MIN of login.defs"), "accounts below get no job"),
    built(
        A,
        "user_allowlist",
        List,
        Nothing("none"),
        "accounts that are accepted whatever `user_blocklist`, `groups_blocklist` and `groups_allowlist` say",
    ),
    built(A, "user_blocklist", List, Nothing("none"), "accounts that are refused"),
    built(A, "groups_blocklist", List, Nothing("none"), "groups whose members are refused"),
    built(
        A,
        "groups_allowlist",
        List,
        Nothing("any group"),
        "groups whose members are accepted unless a blocklist names them; with either allowlist set, others are refused",
    ),
    built(
        A,
        "shell_allowlist",
        List,
        Nothing("any shell"),
        "login shells of accepted accounts, as absolute paths",
    ),
    built(
        A,
        "pipeline_source_allowlist",
        List,
        Nothing("any source"),
        "values of CI_PIPELINE_SOURCE that are accepted",
    ),
    built(
        A,
        "run_stage_allowlist",
        List,
        Nothing("every sub-stage"),
        "scripts that are run, by GitLab Runner's names: `prepare_script`, `get_sources`, `restore_cache`, \
         `download_artifacts`, `build_script` and `step_script` (list both), `after_script`, ...; the others are \
         skipped, which counts as success",
    ),
    built(A, "allow_bot_accounts", Switch, Off, "accept GitLab's bots and service accounts"),
    built(A, "enforce_nologin", Switch, Off, "refuse jobs while /etc/nologin or /var/run/nologin is there"),
    built(A, "no_new_privs", Switch, Off, "set PR_SET_NO_NEW_PRIVS: setuid helpers have no effect in jobs"),
    built(
        A,
        "max_env_chars",
        Number,
        Fallback::Number(10_000),
        "longest job variable that a setting names, in bytes",
    ),
    later(RUNAS, A, "lists_pre_validation", Switch, Off, "judge the lists before the RunAs script too"),
    later(
        "directories that root makes",
        A,
        "root_dir_creation",
        Switch,
        Off,
        "make each user's directory below `data_dir` as root",
    ),
    later(
        RUNAS,
        R,
        "validation_script",
        Text,
        Nothing("none"),
        "the script that maps and judges the account",
    ),
    later(RUNAS, R, "user_variable", Text, Nothing("none"), "job variable that asks for another account"),
    later(RUNAS, R, "sha256", Text, Nothing("not compared"), "digest of the script"),
    later(RUNAS, R, "validation_env", List, Nothing("none"), "`NAME=value` pairs for the script"),
    built(L, "enabled", Switch, On, "write the audit log (Jacamar: `false`)"),
    built(
        L,
        "location",
        Text,
        Nothing("journald, else syslog, else a file"),
        "`syslog` or the absolute path of a file",
    ),
    built(L, "level", Words(LEVELS), Fallback::Text("debug"), "the least important line that is written"),
    later(REMOTE, L, "network", Text, Nothing("none"), "protocol to another host"),
    later(REMOTE, L, "address", Text, Nothing("none"), "host and port"),
    later(SECCOMP, S, "disabled", Switch, Off, "no filter at all"),
    later(SECCOMP, S, "block_calls", List, Nothing("none"), "calls that are refused"),
    later(SECCOMP, S, "block_all", Switch, Off, "refuse every call that is not allowed"),
    later(SECCOMP, S, "allow_calls", List, Nothing("none"), "calls that are allowed"),
    later(SECCOMP, S, "log_allowed_actions", Switch, Off, "log what is allowed"),
    later(SECCOMP, S, "disable_no_new_privs", Switch, Off, "leave no_new_privs alone"),
    later(SECCOMP, S, "error_num_block_actions", Number, Fallback::Number(0), "errno of a refused call"),
    later(SECCOMP, S, "validation_plugin", Text, Nothing("none"), "a Go plugin that changes the filter"),
    later(SECCOMP, S, "limit_setuid", Switch, Off, "only the authorized ids can be set"),
    later(SECCOMP, S, "tty_rules", Switch, Off, "refuse TIOCSTI"),
    later(
        BATCH,
        B,
        "arguments_variable",
        List,
        Nothing("`SCHEDULER_PARAMETERS`"),
        "job variables with arguments for the scheduler",
    ),
    later(
        BATCH,
        B,
        "command_delay",
        Duration,
        Fallback::Duration("30s"),
        "time between two questions to the scheduler",
    ),
    later(BATCH, B, "nfs_timeout", Duration, Fallback::Duration("30s"), "longest wait for output files"),
    later(BATCH, B, "scheduler_bin", Text, Nothing("PATH"), "directory of the scheduler's commands"),
    later(BATCH, B, "env_vars", List, Nothing("none"), "`NAME=value` pairs for the submission"),
    later(BATCH, B, "allow_illegal_args", Switch, Off, "warn about arguments that conflict with ours"),
    later(BATCH, B, "skip_cobalt_log", Switch, Off, "take the status from the output"),
    later(BATCH, B, "lsf_job_cancellation", Switch, Off, "`bkill` at SIGTERM"),
    later(BATCH, B, "default_args", List, Nothing("none"), "arguments of every submission"),
    later(BATCH, B, "disable_name_prefix", Switch, Off, "refuse SCHEDULER_JOB_PREFIX"),
    built(X, "profile", Text, Nothing("`compat`"), "name of the sandbox profile"),
    built(X, "mode", Words(MODES), Fallback::Text("enforce"), "what the profile's rules do"),
    built(
        X,
        "cgroup",
        Text,
        Fallback::Text("auto"),
        "`auto`, `none` or the absolute path of a delegated cgroup",
    ),
    built(
        X,
        "tmp_dir",
        Text,
        Nothing("below the state directory"),
        "absolute path below which private /tmp directories are made",
    ),
    built(X, "usage_report", Switch, On, "say at the end of a job log what the job used"),
];

//! Starts `jacamar keys` or `jacamar verify` as `jacamar-auth` does, and reads the answer.

use std::io::{Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use jacamar_contract::frame;
use jacamar_contract::keys::{KeysAnswer, KeysFailed, KeysRequest, KeysRule};
use jacamar_contract::verify::{VerifyAnswer, VerifyRequest};
use tempfile::NamedTempFile;
use testbed::gitlab::{Facts, JobBuilder, Keys};

pub(crate) const JACAMAR: &str = env!("CARGO_BIN_EXE_jacamar");
pub(crate) const SERVER: &str = "https://gitlab.example.com";
pub(crate) const AUDIENCE: &str = "https://hpc.example.org";
pub(crate) const NAME: &str = "SITE_ID_TOKEN";

/// A file with these bytes, removed at its end.
pub(crate) fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("temporary file");
    file.write_all(bytes).expect("written");
    file
}

/// One start. Its environment is empty unless it is given.
pub(crate) struct Call<'a> {
    command: &'a str,
    stdin: Vec<u8>,
    third: Option<&'a Path>,
    fourth: Option<&'a Path>,
    environment: Vec<String>,
    wrapper: Vec<String>,
}

impl<'a> Call<'a> {
    pub(crate) fn new(command: &'a str, stdin: Vec<u8>) -> Self {
        Self { command, stdin, third: None, fourth: None, environment: Vec::new(), wrapper: Vec::new() }
    }

    /// What descriptor 3 reads.
    pub(crate) fn third(self, path: &'a Path) -> Self {
        Self { third: Some(path), ..self }
    }

    /// What descriptor 4 reads.
    pub(crate) fn fourth(self, path: &'a Path) -> Self {
        Self { fourth: Some(path), ..self }
    }

    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("{name}={value}"));
        self
    }

    /// A command that executes what follows.
    pub(crate) fn wrapper(self, words: &[&str]) -> Self {
        Self { wrapper: words.iter().map(|&word| word.to_owned()).collect(), ..self }
    }

    pub(crate) fn run(self) -> Output {
        let mut stdin = tempfile::tempfile().expect("temporary file");
        stdin.write_all(&self.stdin).expect("written");
        stdin.rewind().expect("rewound");
        let open = |path: Option<&Path>, number: u8| match path {
            Some(_) => format!("exec {number}<\"$1\"; shift; "),
            None => format!("exec {number}<&-; "),
        };
        let script = format!("{}{}exec \"$@\"", open(self.third, 3), open(self.fourth, 4));
        let mut bash = Command::new("bash");
        bash.args(["-c", &script, "bash"]).args(self.third).args(self.fourth);
        // The wrapper sees our environment, `jacamar` what `env` leaves.
        bash.args(self.wrapper).args(["env", "-i"]).args(self.environment).args([JACAMAR, self.command]);
        let child = bash.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("bash");
        let output = child.wait_with_output().expect("waited");
        assert_eq!(output.status.signal(), None, "{output:?}");
        output
    }
}

pub(crate) fn verify_request() -> VerifyRequest {
    VerifyRequest {
        issuer: SERVER.to_owned(),
        audience: Some(AUDIENCE.to_owned()),
        runner_id: Some(3),
        token_variable: NAME.to_owned(),
    }
}

pub(crate) fn facts() -> Facts {
    Facts::new(SERVER)
}

/// The response file of the ordinary job with this token.
pub(crate) fn response(token: &str) -> Vec<u8> {
    JobBuilder::new(facts()).id_token_value(NAME, token).build().response_json().expect("JSON")
}

pub(crate) fn key_set() -> Vec<u8> {
    Keys::of_this_process().expect("keys").jwks().to_string().into_bytes()
}

/// The answer to the ordinary question, and all that was written.
pub(crate) fn verify(response: &[u8], keys: &[u8]) -> (VerifyAnswer, Output) {
    let (response, keys) = (file(response), file(keys));
    let call = Call::new("verify", frame::encode(&verify_request()).expect("frame"));
    let output = call.third(response.path()).fourth(keys.path()).run();
    (answer(&output), output)
}

pub(crate) fn answer(output: &Output) -> VerifyAnswer {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    VerifyAnswer::decode(&output.stdout).expect("an answer")
}

/// A request for the keys of this server, and the authority that is believed.
pub(crate) struct Fetch {
    pub(crate) request: KeysRequest,
    pub(crate) ca: Option<String>,
    pub(crate) environment: Vec<(&'static str, String)>,
    pub(crate) wrapper: Vec<String>,
}

impl Fetch {
    pub(crate) fn new(server: &str, ca: Option<&str>) -> Self {
        let request = KeysRequest {
            url: format!("{server}/oauth/discovery/keys"),
            allow_http: server.starts_with("http://"),
            time_limit_ms: 10_000,
            own_ca: ca.is_some(),
            proxy: None,
        };
        Self { request, ca: ca.map(str::to_owned), environment: Vec::new(), wrapper: Vec::new() }
    }

    pub(crate) fn output(&self) -> Output {
        let ca = self.ca.as_ref().map(|pem| file(pem.as_bytes()));
        let path: Option<PathBuf> = ca.as_ref().map(|file| file.path().to_owned());
        let mut call = Call::new("keys", frame::encode(&self.request).expect("frame"));
        if let Some(path) = &path {
            call = call.third(path);
        }
        for (name, value) in &self.environment {
            call = call.environment(name, value);
        }
        let wrapper: Vec<&str> = self.wrapper.iter().map(String::as_str).collect();
        call.wrapper(&wrapper).run()
    }

    /// The key set, or why there is none.
    pub(crate) fn answer(&self) -> Result<Vec<u8>, KeysFailed> {
        let output = self.output();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        match KeysAnswer::decode(&output.stdout).expect("an answer") {
            KeysAnswer::Fetched(keys) => Ok(keys.to_vec()),
            KeysAnswer::Failed(failed) => Err(failed),
        }
    }

    #[track_caller]
    pub(crate) fn fails(&self, rule: KeysRule, cause: &str) {
        let failed = self.answer().expect_err(rule.word());
        assert_eq!(failed.rule, rule, "{failed}");
        assert_eq!(failed.object, self.request.url);
        assert!(failed.cause.contains(cause), "{failed}");
    }
}

//! Values of every kind of frame, good ones and any.

use jacamar_contract::claims::{ClaimFields, Claims};
use jacamar_contract::frame::{Kind, VERSION};
use jacamar_contract::keys::{KeysFailed, KeysRequest, KeysRule, TIME_LIMIT_MAX_MS};
use jacamar_contract::stage_request::{DirectoryMode, ProfileMode, StageRequest};
use jacamar_contract::verify::{VerifyRefused, VerifyRequest, VerifyRule};
use jacamar_plan::{Stage, SubStage};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// What GitLab says of an ordinary push, in our names.
pub(crate) fn alice() -> ClaimFields {
    ClaimFields {
        issuer: "https://gitlab.example.com".to_owned(),
        audience: Some("https://hpc.example.org".to_owned()),
        user_id: 7,
        user_login: "alice".to_owned(),
        user_email: Some("alice@example.com".to_owned()),
        user_access_level: Some("developer".to_owned()),
        project_id: 20,
        project_path: "group/proj".to_owned(),
        job_project_id: Some(20),
        job_project_path: Some("group/proj".to_owned()),
        namespace_id: Some(10),
        namespace_path: "group".to_owned(),
        job_id: 302,
        pipeline_id: 574,
        pipeline_source: "push".to_owned(),
        reference: "main".to_owned(),
        reference_type: "branch".to_owned(),
        reference_protected: false,
        sha: "63fe2fa6960f105226bf0fe8d72403aec073c02f".to_owned(),
        runner_id: 3,
        runner_environment: Some("self-hosted".to_owned()),
        composite_identity: false,
    }
}

pub(crate) fn verify_request() -> VerifyRequest {
    VerifyRequest {
        issuer: "https://gitlab.example.com".to_owned(),
        audience: Some("https://hpc.example.org".to_owned()),
        runner_id: Some(3),
        token_variable: "SITE_ID_TOKEN".to_owned(),
    }
}

pub(crate) fn keys_request() -> KeysRequest {
    KeysRequest {
        url: "https://gitlab.example.com/oauth/discovery/keys".to_owned(),
        allow_http: false,
        time_limit_ms: 10_000,
        own_ca: true,
        proxy: None,
    }
}

pub(crate) fn stage_request() -> StageRequest {
    StageRequest {
        stage: Stage::Run(SubStage::new("build_script").expect("a name")),
        shell: "/bin/bash".to_owned(),
        home: "/home/alice".to_owned(),
        builds_dir: "/scratch/alice/builds/3/login1/000".to_owned(),
        cache_dir: "/scratch/alice/cache".to_owned(),
        profile: ProfileMode::Login,
        environment: vec![("JACAMAR_CI_SHELL".to_owned(), "true".to_owned())],
        directory_mode: DirectoryMode::Private,
        job_message: "Welcome.\nMaintenance on Monday.".to_owned(),
        account: "alice".to_owned(),
        host: "login1".to_owned(),
        sandbox_profile: "default".to_owned(),
        support_contact: String::new(),
        remove: vec!["/scratch/alice/builds/3/login1/000/group/proj.tmp".to_owned()],
        usage_group: "/sys/fs/cgroup/jacamar.slice/jacamar-u1001.slice/jacamar-u1001-1.slice".to_owned(),
        usage_file: "/scratch/alice/builds/3/login1/000/group/proj/usage.json".to_owned(),
        report: true,
        script_bytes: 8,
    }
}

const URL: &str = "https://[a-z0-9.-]{1,40}(/[!-~]{0,40})?";
const LOGIN: &str = "[A-Za-z0-9_]([A-Za-z0-9_.-]{0,30}[A-Za-z0-9_-])?";
const NAME: &str = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}";
const SHOWN: &str = "[ -~äß日]{1,80}";
const DIRECTORY: &str = "(/[A-Za-z0-9_ -]{1,20}){1,4}";

fn word() -> impl Strategy<Value = String> {
    "[a-z_-]{1,20}"
}

fn id() -> impl Strategy<Value = u64> {
    1..=u64::MAX
}

fn path() -> impl Strategy<Value = String> {
    vec(NAME, 1..4).prop_map(|names| names.join("/"))
}

pub(crate) fn any_claims() -> impl Strategy<Value = Claims> {
    let who = (
        URL,
        option::of(URL),
        id(),
        LOGIN,
        option::of("[a-z]{1,9}@[a-z.]{1,20}"),
        option::of("[a-z ]{1,64}"),
    );
    let project = (id(), path(), option::of(id()), option::of(path()), option::of(id()), path());
    let job = (id(), id(), word(), "[!-~ä]{1,60}", word(), any::<bool>(), "[0-9a-f]{40}|[0-9a-f]{64}");
    let runner = (id(), option::of(word()), any::<bool>());
    (who, project, job, runner).prop_map(|(who, project, job, runner)| {
        let fields = ClaimFields {
            issuer: who.0,
            audience: who.1,
            user_id: who.2,
            user_login: who.3,
            user_email: who.4,
            user_access_level: who.5,
            project_id: project.0,
            project_path: project.1,
            job_project_id: project.2,
            job_project_path: project.3,
            namespace_id: project.4,
            namespace_path: project.5,
            job_id: job.0,
            pipeline_id: job.1,
            pipeline_source: job.2,
            reference: job.3,
            reference_type: job.4,
            reference_protected: job.5,
            sha: job.6,
            runner_id: runner.0,
            runner_environment: runner.1,
            composite_identity: runner.2,
        };
        Claims::new(fields).expect("well-formed")
    })
}

pub(crate) fn any_verify_request() -> impl Strategy<Value = VerifyRequest> {
    (URL, option::of(URL), option::of(any::<u64>()), "[A-Z_][A-Z0-9_]{0,30}").prop_map(
        |(issuer, audience, runner_id, token_variable)| VerifyRequest {
            issuer,
            audience,
            runner_id,
            token_variable,
        },
    )
}

pub(crate) fn any_verify_refused() -> impl Strategy<Value = VerifyRefused> {
    let rule = prop::sample::select(VerifyRule::ALL);
    (rule, SHOWN, SHOWN).prop_map(|(rule, object, cause)| VerifyRefused { rule, object, cause })
}

pub(crate) fn any_keys_request() -> impl Strategy<Value = KeysRequest> {
    (URL, any::<bool>(), 1..=TIME_LIMIT_MAX_MS, any::<bool>(), option::of(URL)).prop_map(
        |(url, allow_http, time_limit_ms, own_ca, proxy)| KeysRequest {
            url,
            allow_http,
            time_limit_ms,
            own_ca,
            proxy,
        },
    )
}

pub(crate) fn any_keys_failed() -> impl Strategy<Value = KeysFailed> {
    let rule = prop::sample::select(KeysRule::ALL);
    (rule, SHOWN, SHOWN).prop_map(|(rule, object, cause)| KeysFailed { rule, object, cause })
}

pub(crate) fn any_stage_request(script_bytes: u64) -> impl Strategy<Value = StageRequest> {
    let stage = prop_oneof![
        Just(Stage::Config),
        Just(Stage::Prepare),
        "[a-z_]{1,30}".prop_map(|name| Stage::Run(SubStage::new(&name).expect("a name"))),
        Just(Stage::Cleanup),
        Just(Stage::Exec),
    ];
    let profile =
        prop::sample::select(vec![ProfileMode::Login, ProfileMode::NoProfile, ProfileMode::EtcProfileOnly]);
    let environment = vec(("[A-Z_][A-Z0-9_]{0,20}", "[^\0]{0,40}"), 0..5);
    let mode = prop::sample::select(vec![DirectoryMode::Private, DirectoryMode::Group]);
    let messages =
        ("[^\0]{0,80}", option::of(SHOWN), option::of(SHOWN), option::of(SHOWN), option::of(SHOWN));
    let cleanup = (vec(DIRECTORY, 0..4), any::<bool>(), option::of(DIRECTORY), option::of(DIRECTORY));
    let directories = (DIRECTORY, DIRECTORY, mode);
    (stage, DIRECTORY, DIRECTORY, directories, profile, environment, messages, cleanup).prop_map(
        move |(
            stage,
            shell,
            home,
            directories,
            profile,
            environment,
            messages,
            (remove, report, group, file),
        )| {
            let (builds_dir, cache_dir, directory_mode) = directories;
            let (job_message, account, host, sandbox_profile, support_contact) = messages;
            StageRequest {
                stage,
                shell,
                home,
                remove: remove.iter().map(|tail| format!("{builds_dir}{tail}")).collect(),
                builds_dir,
                cache_dir,
                profile,
                environment,
                directory_mode,
                job_message,
                account: account.unwrap_or_default(),
                host: host.unwrap_or_default(),
                sandbox_profile: sandbox_profile.unwrap_or_default(),
                support_contact: support_contact.unwrap_or_default(),
                usage_group: group.unwrap_or_default(),
                usage_file: file.unwrap_or_default(),
                report,
                script_bytes,
            }
        },
    )
}

/// A frame of this kind with any payload.
pub(crate) fn framed(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut frame = b"JCMR".to_vec();
    frame.extend(VERSION.to_be_bytes());
    frame.extend(kind.number().to_be_bytes());
    frame.extend(u32::try_from(payload.len()).expect("short").to_be_bytes());
    frame.extend(payload);
    frame
}

pub(crate) fn field(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat()
}

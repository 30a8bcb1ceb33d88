//! A person with an account, a site that allows everybody, and ways to change one thing.

use jacamar_authorize::{
    AccountFacts, Downscope, FoundAccount, HostAccounts, Lookup, Policy, Rule, authorize,
};
use jacamar_contract::claims::{ClaimFields, Claims};
use jacamar_plan::{Account, Grant, Refusal};

/// One question to `authorize`, before it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) claims: ClaimFields,
    pub(crate) policy: Policy,
    pub(crate) facts: AccountFacts,
}

impl Case {
    /// alice, granted because the site has no allowlist.
    pub(crate) fn alice() -> Self {
        Self { claims: claims("alice"), policy: policy(), facts: facts("alice", 1001) }
    }

    /// A user of GitLab with an ordinary account of the same name.
    pub(crate) fn user(login: &str) -> Self {
        Self { claims: claims(login), policy: policy(), facts: facts(login, 1001) }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(crate) fn found(&mut self) -> &mut FoundAccount {
        match &mut self.facts.lookup {
            Lookup::Found(found) => found,
            Lookup::NoSuchAccount => panic!("an account"),
        }
    }

    pub(crate) fn ask(&self) -> Result<Grant, Refusal> {
        let claims = Claims::new(self.claims.clone()).expect("well-formed claims");
        authorize(&claims, &self.policy, &self.facts)
    }

    pub(crate) fn refused(&self) -> Refusal {
        self.ask().expect_err("refused")
    }

    #[track_caller]
    pub(crate) fn is_refused_by(&self, rule: Rule) {
        match self.ask() {
            Ok(grant) => panic!("granted by {}, expected {}", grant.rule, rule.word()),
            Err(refusal) => assert_eq!(refusal.rule, rule.word(), "{refusal}"),
        }
    }

    #[track_caller]
    pub(crate) fn is_granted_by(&self, rule: Rule) {
        match self.ask() {
            Ok(grant) => assert_eq!(grant.rule, rule.word()),
            Err(refusal) => panic!("refused by {}: {refusal}, expected {}", refusal.rule, rule.word()),
        }
    }
}

pub(crate) fn claims(login: &str) -> ClaimFields {
    ClaimFields {
        issuer: "https://gitlab.example.com".to_owned(),
        audience: None,
        user_id: 7,
        user_login: login.to_owned(),
        user_email: Some("someone@example.com".to_owned()),
        user_access_level: None,
        project_id: 20,
        project_path: "group/proj".to_owned(),
        job_project_id: None,
        job_project_path: None,
        namespace_id: None,
        namespace_path: "group".to_owned(),
        job_id: 302,
        pipeline_id: 574,
        pipeline_source: "push".to_owned(),
        reference: "main".to_owned(),
        reference_type: "branch".to_owned(),
        reference_protected: false,
        sha: "63fe2fa6960f105226bf0fe8d72403aec073c02f".to_owned(),
        runner_id: 3,
        runner_environment: None,
        composite_identity: false,
    }
}

pub(crate) fn policy() -> Policy {
    Policy {
        user_allowlist: vec![],
        user_blocklist: vec![],
        groups_blocklist: vec![],
        groups_allowlist: vec![],
        shell_allowlist: vec![],
        pipeline_source_allowlist: vec![],
        allow_bot_accounts: false,
        enforce_nologin: false,
        minimum_uid: 1000,
        downscope: Downscope::Setuid,
        runner_id: Some(3),
    }
}

pub(crate) fn account(name: &str, uid: u32) -> Account {
    Account {
        name: name.to_owned(),
        uid,
        gid: 1001,
        groups: vec![1001, 2000],
        home: format!("/home/{name}"),
        shell: "/bin/bash".to_owned(),
    }
}

pub(crate) fn facts(name: &str, uid: u32) -> AccountFacts {
    AccountFacts {
        lookup: Lookup::Found(FoundAccount {
            account: account(name, uid),
            group_names: vec!["users".to_owned(), "hpc".to_owned()],
        }),
        nologin: None,
        host: HostAccounts { runner: account("gitlab-runner", 1900), own_uids: vec![1901, 1902] },
    }
}

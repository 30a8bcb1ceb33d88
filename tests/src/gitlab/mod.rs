//! A GitLab stand-in: an HTTP server on 127.0.0.1 with key set, Git and artifacts, and the jobs it hands out.
//!
//! Jobs are handed to the runner stand-in in the process; there is no `jobs/request`.

mod facts;
mod git;
mod http;
mod job;
mod keys;
mod predefined;
mod server;
mod spec;
mod tls;
mod token;

pub use facts::{Facts, Project, User};
pub use git::{File, Repository};
pub use job::JobBuilder;
pub use keys::{Key, Keys};
pub use predefined::Predefined;
pub use server::{GitLab, KeySet, Seen, Upload};
pub(crate) use spec::when_fits;
pub use spec::{
    Artifact, ArtifactsFile, Cache, Credentials, Dependency, DockerOptions, ExecutorOptions, Features,
    GitInfo, Hook, Image, Job, JobInfo, KubernetesOptions, List, PolicyOptions, RunnerInfo, Step,
    SuspendOptions, Variable, entries,
};
pub use token::{IdToken, Spoil};

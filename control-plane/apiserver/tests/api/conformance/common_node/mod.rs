//! What upstream tests in `test/e2e/common/node`.

mod configmap;
mod lease;
mod pods;
mod podtemplates;
mod runtimeclass;
mod secrets;
mod sysctl;

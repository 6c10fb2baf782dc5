//! Filters of the machine's own (`seccompProfile` of type `Localhost`), in the JSON of the OCI
//! runtime specification.
//!
//! Names that this machine's kernel interface does not have are passed over, as libseccomp does it,
//! so that one profile serves machines of several kinds. Deliberately absent: `SCMP_ACT_NOTIFY`,
//! for which somebody would have to listen, and the numbers of other architectures.

use std::collections::BTreeSet;
use std::io;

use libcontainer::oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};
use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::{Profile, Rule, names};

/// Reads a profile, of which every part must be one that can be kept.
pub(crate) fn parse(text: &[u8]) -> Result<LinuxSeccomp, String> {
    let read: LinuxSeccomp = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    // What cannot be compiled is told when the container is made, not when it starts.
    let compiled = profile(&read).and_then(Profile::compile);
    compiled.map_err(|error| error.to_string())?;
    Ok(read)
}

/// The profile as rules.
pub(crate) fn profile(of: &LinuxSeccomp) -> io::Result<Profile> {
    let mut rules = Vec::new();
    for call in of.syscalls().iter().flatten() {
        let conditions = conditions(call)?;
        let numbers = call.names().iter().filter_map(|name| names::number(name));
        let calls = numbers.map(|number| (number, conditions.clone())).collect();
        rules.push(Rule {
            action: action(call.action(), call.errno_ret())?,
            calls,
        });
    }
    let mut flags = 0;
    for flag in of.flags().iter().flatten() {
        flags |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => {
                libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW
            }
            // The process that installs it has one thread.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            // It is of those who are notified.
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
        };
    }
    Ok(Profile {
        otherwise: action(of.default_action(), of.default_errno_ret())?,
        rules,
        flags,
    })
}

fn action(of: LinuxSeccompAction, code: Option<u32>) -> io::Result<SeccompAction> {
    // The kernel has 16 bits for it.
    let code = code.unwrap_or(libc::EPERM as u32) & 0xffff;
    Ok(match of {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            SeccompAction::KillThread
        }
        LinuxSeccompAction::ScmpActKillProcess => SeccompAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => SeccompAction::Trap,
        LinuxSeccompAction::ScmpActErrno => SeccompAction::Errno(code),
        LinuxSeccompAction::ScmpActTrace => SeccompAction::Trace(code),
        LinuxSeccompAction::ScmpActLog => SeccompAction::Log,
        LinuxSeccompAction::ScmpActAllow => SeccompAction::Allow,
        LinuxSeccompAction::ScmpActNotify => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "SCMP_ACT_NOTIFY is not supported",
            ));
        }
    })
}

/// What must hold of the arguments: all of it, unless one argument is named twice. Then each
/// condition suffices, as it does for runc.
fn conditions(call: &LinuxSyscall) -> io::Result<Vec<SeccompRule>> {
    let arguments: &[LinuxSeccompArg] = call.args().as_deref().unwrap_or_default();
    if arguments.is_empty() {
        return Ok(Vec::new());
    }
    let all: Vec<SeccompCondition> = arguments.iter().map(condition).collect::<io::Result<_>>()?;
    let distinct: BTreeSet<usize> = arguments.iter().map(LinuxSeccompArg::index).collect();
    let rules = match distinct.len() == arguments.len() {
        true => vec![all],
        false => all.into_iter().map(|one| vec![one]).collect(),
    };
    let rules = rules.into_iter().map(SeccompRule::new);
    rules.collect::<Result<_, _>>().map_err(io::Error::other)
}

fn condition(of: &LinuxSeccompArg) -> io::Result<SeccompCondition> {
    let (operator, value) = match of.op() {
        LinuxSeccompOperator::ScmpCmpNe => (SeccompCmpOp::Ne, of.value()),
        LinuxSeccompOperator::ScmpCmpLt => (SeccompCmpOp::Lt, of.value()),
        LinuxSeccompOperator::ScmpCmpLe => (SeccompCmpOp::Le, of.value()),
        LinuxSeccompOperator::ScmpCmpEq => (SeccompCmpOp::Eq, of.value()),
        LinuxSeccompOperator::ScmpCmpGe => (SeccompCmpOp::Ge, of.value()),
        LinuxSeccompOperator::ScmpCmpGt => (SeccompCmpOp::Gt, of.value()),
        // The first value is the mask.
        LinuxSeccompOperator::ScmpCmpMaskedEq => (
            SeccompCmpOp::MaskedEq(of.value()),
            of.value_two().unwrap_or(0),
        ),
    };
    let index = u8::try_from(of.index()).map_err(io::Error::other)?;
    let made = SeccompCondition::new(index, SeccompCmpArgLen::Qword, operator, value);
    made.map_err(io::Error::other)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(profile: Value) -> Result<LinuxSeccomp, String> {
        parse(profile.to_string().as_bytes())
    }

    #[test]
    fn rules_are_of_the_machines_calls() {
        let read = check(json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [
                {"names": ["read", "socketcall", "of_tomorrow"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO"},
                {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
                    {"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"},
                    {"index": 1, "value": 7, "op": "SCMP_CMP_NE"},
                ]},
                {"names": ["personality"], "action": "SCMP_ACT_LOG", "args": [
                    {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"},
                    {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"},
                ]},
            ],
        }))
        .unwrap();
        let profile = profile(&read).unwrap();
        assert_eq!(profile.otherwise, SeccompAction::Errno(38));
        assert_eq!(profile.flags, libc::SECCOMP_FILTER_FLAG_LOG);
        let rules: Vec<(SeccompAction, Vec<(i64, usize)>)> = profile
            .rules
            .iter()
            .map(|rule| {
                let calls = rule.calls.iter().map(|(call, rules)| (*call, rules.len()));
                (rule.action.clone(), calls.collect())
            })
            .collect();
        assert_eq!(
            rules,
            [
                (SeccompAction::Allow, vec![(libc::SYS_read, 0)]),
                (SeccompAction::Errno(1), vec![(libc::SYS_mkdirat, 0)]),
                (SeccompAction::Allow, vec![(libc::SYS_clone, 1)]),
                (SeccompAction::Log, vec![(libc::SYS_personality, 2)]),
            ]
        );
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for (profile, why) in [
            (json!([]), "invalid length"),
            (json!({}), "defaultAction"),
            (json!({"defaultAction": "SCMP_ACT_MAYBE"}), "SCMP_ACT_MAYBE"),
            (json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "NOTIFY"),
            (
                json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"],
                    "action": "SCMP_ACT_ERRNO",
                    "args": [{"index": 9, "value": 0, "op": "SCMP_CMP_EQ"}]}]}),
                "argument",
            ),
        ] {
            let error = check(profile.clone()).unwrap_err();
            assert!(error.contains(why), "{profile}: {error}");
        }
        assert!(parse(b"{").is_err());
        // As every kind of action is the default of somebody's.
        for action in [
            "KILL",
            "KILL_PROCESS",
            "TRAP",
            "ERRNO",
            "TRACE",
            "LOG",
            "ALLOW",
        ] {
            check(
                json!({"defaultAction": format!("SCMP_ACT_{action}"), "syscalls": [
                    {"names": ["write"], "action": "SCMP_ACT_ALLOW"},
                    {"names": ["read"], "action": "SCMP_ACT_KILL"},
                ]}),
            )
            .unwrap();
        }
    }
}

//! The filter of system calls, for every process of a container.
//!
//! libcontainer asks a library for filters, and leaves processes that join a container later
//! without any. So a specification of ours names no filter; it is a part of the executor instead,
//! which runs for first and later processes alike ([`crate::shim`]).
//!
//! [`profile`] says what is allowed, as data, and [`localhost`] reads what a machine has of its
//! own; here it becomes a program of the kernel's and is installed. Deliberately absent: programs
//! of other architectures' numbers. A 32-bit program on a 64-bit machine is ended by the filter.

mod calls;
pub(crate) mod localhost;
mod names;
mod profile;

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::spec::Capabilities;

pub(crate) use profile::default_profile;

/// A filter: what system calls do that stand in no rule, and the rules.
pub(crate) struct Profile {
    pub(crate) otherwise: SeccompAction,
    pub(crate) rules: Vec<Rule>,
    /// Flags of seccomp(2).
    pub(crate) flags: libc::c_ulong,
}

/// System calls by number, with the conditions on their arguments; any of several suffices.
pub(crate) type Calls = Vec<(i64, Vec<seccompiler::SeccompRule>)>;

/// System calls and what becomes of them.
pub(crate) struct Rule {
    pub(crate) action: SeccompAction,
    pub(crate) calls: Calls,
}

/// Programs of the kernel's, in the order in which they are installed. The strictest answer
/// counts.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    programs: Vec<BpfProgram>,
    flags: libc::c_ulong,
}

impl Profile {
    /// Compiles the filter. One program has two answers only, so there is one for each answer.
    pub(crate) fn compile(self) -> io::Result<Programs> {
        let architecture =
            TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
        let allowed = |rule: &Rule| rule.action == SeccompAction::Allow;
        let (allow, others): (Vec<Rule>, Vec<Rule>) = self.rules.into_iter().partition(allowed);
        let mut programs = Vec::new();
        let mut calls = std::collections::BTreeMap::new();
        for (call, rules) in allow.into_iter().flat_map(|rule| rule.calls) {
            merge(&mut calls, call, rules);
        }
        for rule in others {
            let mut own = std::collections::BTreeMap::new();
            for (call, rules) in rule.calls {
                // What this program has an answer for, the one that allows lets through.
                merge(&mut calls, call, rules.clone());
                merge(&mut own, call, rules);
            }
            programs.push((own, SeccompAction::Allow, rule.action));
        }
        if self.otherwise != SeccompAction::Allow {
            programs.push((calls, self.otherwise, SeccompAction::Allow));
        }
        let compiled = programs.into_iter().map(|(rules, otherwise, action)| {
            let filter = SeccompFilter::new(rules, otherwise, action, architecture);
            filter
                .and_then(BpfProgram::try_from)
                .map_err(io::Error::other)
        });
        Ok(Programs {
            programs: compiled.collect::<io::Result<_>>()?,
            flags: self.flags,
        })
    }
}

/// A call without conditions is the wider rule.
fn merge(
    into: &mut std::collections::BTreeMap<i64, Vec<seccompiler::SeccompRule>>,
    call: i64,
    rules: Vec<seccompiler::SeccompRule>,
) {
    match into.get_mut(&call) {
        None => {
            into.insert(call, rules);
        }
        Some(known) if known.is_empty() || rules.is_empty() => known.clear(),
        Some(known) => known.extend(rules),
    }
}

impl Programs {
    /// Installs the filter for this process and what it executes. Without no_new_privs it takes
    /// CAP_SYS_ADMIN.
    pub(crate) fn install(&self) -> io::Result<()> {
        for program in &self.programs {
            let length = u16::try_from(program.len()).map_err(io::Error::other)?;
            let program = libc::sock_fprog {
                len: length,
                filter: program.as_ptr().cast_mut().cast(),
            };
            // The crate's own function would set no_new_privs, which takes set-id programs from
            // containers that may have them.
            //
            // SAFETY: the kernel copies the program, whose instructions have the layout of
            // sock_filter and live until the call returns.
            let installed = unsafe {
                libc::syscall(
                    libc::SYS_seccomp,
                    libc::SECCOMP_SET_MODE_FILTER,
                    self.flags,
                    &raw const program,
                )
            };
            if installed != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

/// Leaves a process with these capabilities and no others, for good.
pub(crate) fn keep_only(capabilities: &Capabilities) -> io::Result<()> {
    let kept = CapabilitySet::from_bits_retain(capabilities.bits());
    let now = rustix::thread::capabilities(None)?;
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) || !matches!(bounded(one), Ok(true)) {
            continue;
        }
        rustix::thread::remove_capability_from_bounding_set(one)?;
    }
    rustix::thread::set_capabilities(
        None,
        CapabilitySets {
            effective: now.effective & kept,
            permitted: now.permitted & kept,
            inheritable: now.inheritable & kept,
        },
    )?;
    Ok(())
}

/// Whether a capability is in the bounding set; an error for what the kernel does not know.
fn bounded(one: CapabilitySet) -> io::Result<bool> {
    Ok(rustix::thread::capability_is_in_bounding_set(one)?)
}

#[cfg(test)]
mod tests;

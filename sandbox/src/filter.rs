//! Compiles a filter's rules with seccompiler, before the clone.
//!
//! seccompiler gives one answer per filter, so there is one part per answer; the parts are joined to one program, because
//! the kernel translates and publishes each that is loaded. Three of seccompiler's habits are corrected here and held by
//! tests: a foreign ABI is answered with a kill, x32 is not looked at, and an unconditional rule is lost beside a
//! conditional one of the same call (in its JSON front end; here rules of one call are never mixed).

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use jacamar_kernel::Instruction;
use jacamar_plan::{AddressFamilies, Answer, CallRule, Filter};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use syscalls::Sysno;

/// A filter that cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The running architecture has no filter.
    #[error("no filter is built for this architecture")]
    Architecture,
    /// seccompiler refused the rules.
    #[error("the system call filter cannot be compiled: {0}")]
    Compile(String),
    /// seccompiler made something else than it did when this was written.
    #[error("the compiled system call filter does not begin as expected")]
    Prologue,
}

/// `BPF_LD|BPF_W|BPF_ABS`, `BPF_JMP|BPF_JEQ|BPF_K`, `BPF_JMP|BPF_JGT|BPF_K`, `BPF_JMP|BPF_JGE|BPF_K`,
/// `BPF_JMP|BPF_JA`, `BPF_RET|BPF_K` of
/// `include/uapi/linux/bpf_common.h`.
const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const JUMP_ALWAYS: u16 = 0x05;
const RETURN: u16 = 0x06;
/// Offsets in `struct seccomp_data`.
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
/// `SECCOMP_RET_*` of `include/uapi/linux/seccomp.h`.
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_KILL_PROCESS: u32 = 0x8000_0000;

/// The newest call that this program knows (`file_setattr`, Linux 6.17). A newer one might do what a denied one
/// does (flatpak's CVE-2021-41133), so it gets `ENOSYS`. Numbers from 424 on are the same on all architectures;
/// those of x32 are above it.
const NEWEST_CALL: u32 = 469;

/// Compiles a filter to one program.
///
/// A rule for a call that this architecture does not have is left out: it cannot be made.
///
/// # Errors
/// [`FilterError`].
pub fn compile(filter: &Filter) -> Result<Vec<Instruction>, FilterError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|_| FilterError::Architecture)?;
    let mut parts = Vec::new();
    if filter.native_only {
        parts.push(native_guard(arch).to_vec());
    }
    let mut numbers = BTreeSet::new();
    for answer in Answer::ALL {
        let rules = rules_of(filter, answer)?;
        if !rules.is_empty() {
            numbers.extend(rules.keys().filter_map(|number| u32::try_from(*number).ok()));
            let action = SeccompAction::Errno(u32::from(answer.errno()));
            let compiled = SeccompFilter::new(rules, SeccompAction::Allow, action, arch)
                .and_then(BpfProgram::try_from)
                .map_err(|e| FilterError::Compile(e.to_string()))?;
            parts.push(own_foreign_abi(compiled, filter.native_only)?);
        }
    }
    let mut program = join(parts)?;
    let guarded = if filter.native_only { GUARD_LENGTH } else { 0 };
    program.splice(guarded..guarded, short_cut(&numbers));
    Ok(program)
}

/// Allows the numbers that no rule names by a binary search among the ranges of those that one names.
///
/// seccompiler's rules are asked one after the other, at each call of the job before Linux 5.11, and since then for each
/// number when the filter is loaded (`seccomp_cache_prepare` in `kernel/seccomp.c`).
fn short_cut(numbers: &BTreeSet<u32>) -> Vec<Instruction> {
    // Where what is left or right of it differs: the first number of each range, and the first one behind it.
    let mut bounds: Vec<u32> = Vec::new();
    for number in numbers {
        if bounds.last() == Some(number) {
            bounds.pop();
        } else {
            bounds.push(*number);
        }
        bounds.push(number.saturating_add(1));
    }
    let mut search = Vec::new();
    divide(&bounds, 0, &mut search);
    // Two answers end it: the last instruction allows, the one behind it is the first rule.
    let end = search.len();
    let jump = |from: usize, to: Next| {
        let at = match to {
            Next::Node(node) => node,
            Next::Allowed => end,
            Next::Named => end + 1,
        };
        u8::try_from(at - from - 1).ok()
    };
    let nodes = search.iter().enumerate().map(|(at, node)| {
        let (jt, jf) = (jump(at, node.at_or_above)?, jump(at, node.below)?);
        Some(Instruction { code: JUMP_GREATER_EQUAL, jt, jf, k: node.bound })
    });
    // Too many ranges for offsets of one byte: then every rule is asked.
    let Some(nodes) = nodes.collect::<Option<Vec<_>>>() else { return Vec::new() };
    let statement = |code, k| Instruction { code, jt: 0, jf: 0, k };
    [statement(LOAD, OFFSET_NR)].into_iter().chain(nodes).chain([statement(RETURN, RET_ALLOW)]).collect()
}

#[derive(Clone, Copy)]
enum Next {
    Node(usize),
    Allowed,
    Named,
}

struct Node {
    bound: u32,
    at_or_above: Next,
    below: Next,
}

/// Adds the search among some bounds of which the first has the index `first`; where it begins.
fn divide(bounds: &[u32], first: usize, nodes: &mut Vec<Node>) -> Next {
    let middle = bounds.len() / 2;
    let Some(bound) = bounds.get(middle) else {
        // Between two bounds: before the first and behind the last all is allowed, and so it alternates.
        return if first.is_multiple_of(2) { Next::Allowed } else { Next::Named };
    };
    let at = nodes.len();
    nodes.push(Node { bound: *bound, at_or_above: Next::Allowed, below: Next::Allowed });
    let below = divide(bounds.get(..middle).unwrap_or_default(), first, nodes);
    let at_or_above = divide(bounds.get(middle + 1..).unwrap_or_default(), first + middle + 1, nodes);
    if let Some(node) = nodes.get_mut(at) {
        *node = Node { bound: *bound, at_or_above, below };
    }
    Next::Node(at)
}

/// One program that asks one part after the other: what a part allows goes to the next one, the first refusal counts.
fn join(parts: Vec<Vec<Instruction>>) -> Result<Vec<Instruction>, FilterError> {
    let allow = Instruction { code: RETURN, jt: 0, jf: 0, k: RET_ALLOW };
    let mut program = Vec::with_capacity(parts.iter().map(Vec::len).sum::<usize>() + 1);
    for part in parts {
        let end = part.len();
        for (at, instruction) in part.into_iter().enumerate() {
            program.push(if instruction == allow {
                // To the instruction behind this part. Offsets count from the next one.
                let k = u32::try_from(end - at - 1).map_err(|_| FilterError::Prologue)?;
                Instruction { code: JUMP_ALWAYS, jt: 0, jf: 0, k }
            } else {
                instruction
            });
        }
    }
    program.push(allow);
    Ok(program)
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules_of(filter: &Filter, answer: Answer) -> Result<Rules, FilterError> {
    let mut rules = Rules::new();
    for CallRule { call, when, .. } in filter.rules.iter().filter(|rule| rule.answer == answer) {
        let Ok(number) = Sysno::from_str(call) else { continue };
        let conditions = match when {
            None => Vec::new(),
            Some(condition) => {
                vec![compare(condition.argument, SeccompCmpOp::Eq, condition.equals)?]
            }
        };
        add(&mut rules, number, conditions)?;
    }
    if answer == Answer::Eafnosupport
        && let Some(families) = &filter.families
    {
        for call in [Sysno::socket, Sysno::socketpair] {
            match families {
                AddressFamilies::Except(denied) => {
                    for family in denied {
                        add(&mut rules, call, vec![compare(0, SeccompCmpOp::Eq, *family)?])?;
                    }
                }
                AddressFamilies::Only(allowed) => {
                    let others: Result<Vec<_>, _> =
                        allowed.iter().map(|family| compare(0, SeccompCmpOp::Ne, *family)).collect();
                    add(&mut rules, call, others?)?;
                }
            }
        }
    }
    Ok(rules)
}

/// An empty list of rules is seccompiler's "always".
fn add(rules: &mut Rules, call: Sysno, conditions: Vec<SeccompCondition>) -> Result<(), FilterError> {
    let number = i64::from(call.id());
    let always = conditions.is_empty();
    let list = rules.entry(number);
    match list {
        std::collections::btree_map::Entry::Vacant(entry) => {
            let list = if always { Vec::new() } else { vec![rule(conditions)?] };
            entry.insert(list);
        }
        std::collections::btree_map::Entry::Occupied(mut entry) => {
            if always {
                entry.get_mut().clear();
            } else if !entry.get().is_empty() {
                entry.get_mut().push(rule(conditions)?);
            }
        }
    }
    Ok(())
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, FilterError> {
    SeccompRule::new(conditions).map_err(|e| FilterError::Compile(e.to_string()))
}

/// Compares the lower 32 bits, as the kernel does.
fn compare(argument: u8, operator: SeccompCmpOp, value: u32) -> Result<SeccompCondition, FilterError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, u64::from(value))
        .map_err(|e| FilterError::Compile(e.to_string()))
}

/// Replaces the kill of a foreign ABI: a 32-bit tool gets ENOSYS, or is left alone where a profile does not ask.
fn own_foreign_abi(program: BpfProgram, native_only: bool) -> Result<Vec<Instruction>, FilterError> {
    let mut program: Vec<Instruction> =
        program.iter().map(|i| Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect();
    let begins = match program.as_slice() {
        [load, jump, kill, ..] => {
            load.code == LOAD
                && load.k == OFFSET_ARCH
                && jump.code == JUMP_EQUAL
                && (jump.jt, jump.jf) == (1, 0)
                && kill.code == RETURN
                && kill.k == RET_KILL_PROCESS
        }
        _ => false,
    };
    let kill = program.get_mut(2).filter(|_| begins).ok_or(FilterError::Prologue)?;
    kill.k = foreign(native_only);
    if program.iter().any(|i| i.code == RETURN && i.k == RET_KILL_PROCESS) {
        return Err(FilterError::Prologue);
    }
    Ok(program)
}

fn foreign(native_only: bool) -> u32 {
    if native_only { RET_ERRNO | u32::from(Answer::Enosys.errno()) } else { RET_ALLOW }
}

/// Instructions of [`native_guard`].
const GUARD_LENGTH: usize = 7;

/// Foreign ABIs and unknown numbers get ENOSYS.
fn native_guard(arch: TargetArch) -> [Instruction; GUARD_LENGTH] {
    let enosys = RET_ERRNO | u32::from(Answer::Enosys.errno());
    let statement = |code, k| Instruction { code, jt: 0, jf: 0, k };
    [
        statement(LOAD, OFFSET_ARCH),
        Instruction { code: JUMP_EQUAL, jt: 1, jf: 0, k: audit_arch(arch) },
        statement(RETURN, enosys),
        statement(LOAD, OFFSET_NR),
        Instruction { code: JUMP_GREATER, jt: 0, jf: 1, k: NEWEST_CALL },
        statement(RETURN, enosys),
        statement(RETURN, RET_ALLOW),
    ]
}

/// `AUDIT_ARCH_*` of `include/uapi/linux/audit.h`.
fn audit_arch(arch: TargetArch) -> u32 {
    match arch {
        TargetArch::x86_64 => 0xc000_003e,
        TargetArch::aarch64 => 0xc000_00b7,
        TargetArch::riscv64 => 0xc000_00f3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jacamar_plan::Condition;

    fn deny(call: &str, answer: Answer) -> CallRule {
        CallRule { call: call.into(), when: None, answer }
    }

    fn filter(rules: Vec<CallRule>) -> Filter {
        Filter { native_only: true, rules, families: None }
    }

    #[test]
    fn nothing_is_ever_killed() {
        let filter = Filter {
            native_only: true,
            rules: vec![deny("bpf", Answer::Eperm), deny("vserver", Answer::Enosys)],
            families: Some(AddressFamilies::Only(vec![1, 2, 10, 16])),
        };
        let program = compile(&filter).expect("compiles");
        let answers: BTreeSet<u32> = program.iter().filter(|i| i.code == RETURN).map(|i| i.k).collect();
        let errno = |answer: Answer| RET_ERRNO | u32::from(answer.errno());
        assert_eq!(answers, Answer::ALL.map(errno).into_iter().chain([RET_ALLOW]).collect());
    }

    #[test]
    fn a_foreign_abi_is_left_alone_unless_asked() {
        let mut filter = filter(vec![deny("bpf", Answer::Eperm)]);
        filter.native_only = false;
        let program = compile(&filter).expect("compiles");
        let [.., last] = program.as_slice() else { panic!("a program") };
        assert_eq!(last.k, RET_ALLOW);
        assert!(
            program.iter().all(|i| i.code != RETURN || i.k != RET_ERRNO | u32::from(Answer::Enosys.errno()))
        );
    }

    #[test]
    fn an_unconditional_rule_is_not_lost_beside_a_conditional_one() {
        let conditional = CallRule {
            call: "ioctl".into(),
            when: Some(Condition { argument: 1, equals: 0x5412 }),
            answer: Answer::Eperm,
        };
        let always = deny("ioctl", Answer::Eperm);
        let alone = compile(&filter(vec![always.clone()])).expect("compiles");
        for rules in [vec![conditional.clone(), always.clone()], vec![always, conditional]] {
            assert_eq!(compile(&filter(rules)).expect("compiles"), alone);
        }
    }

    #[test]
    fn the_guard_knows_every_call_that_the_table_knows() {
        let newest = Sysno::iter().map(|call| call.id()).max().expect("a table");
        assert!(u32::try_from(newest).expect("small") <= NEWEST_CALL, "{newest}");
    }

    #[test]
    fn a_call_that_the_architecture_lacks_needs_no_rule() {
        let none = compile(&filter(Vec::new())).expect("compiles");
        assert_eq!(compile(&filter(vec![deny("rtas", Answer::Eperm)])).expect("compiles"), none);
    }
}

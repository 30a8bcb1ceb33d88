//! The four lists against each other.

use jacamar_authorize::{Policy, Rule};

use crate::samples::Case;

/// Which list; the account is alice, and in group hpc.
#[derive(Clone, Copy, Debug, PartialEq)]
enum List {
    UserAllow,
    UserBlock,
    GroupsBlock,
    GroupsAllow,
}

use List::{GroupsAllow, GroupsBlock, UserAllow, UserBlock};

/// In the order in which they win.
const ORDER: [List; 4] = [UserAllow, UserBlock, GroupsBlock, GroupsAllow];

impl List {
    fn of(self, policy: &mut Policy) -> &mut Vec<String> {
        match self {
            UserAllow => &mut policy.user_allowlist,
            UserBlock => &mut policy.user_blocklist,
            GroupsBlock => &mut policy.groups_blocklist,
            GroupsAllow => &mut policy.groups_allowlist,
        }
    }

    fn name_alice(self, case: &mut Case) {
        let name = if matches!(self, UserAllow | UserBlock) { "alice" } else { "hpc" };
        self.of(&mut case.policy).extend(["other".to_owned(), name.to_owned()]);
    }

    fn name_others(self, case: &mut Case) {
        self.of(&mut case.policy).push("other".to_owned());
    }

    fn rule(self) -> Rule {
        match self {
            UserAllow => Rule::UserAllowlist,
            UserBlock => Rule::UserBlocklist,
            GroupsBlock => Rule::GroupsBlocklist,
            GroupsAllow => Rule::GroupsAllowlist,
        }
    }

    fn allows(self) -> bool {
        matches!(self, UserAllow | GroupsAllow)
    }
}

fn is_decided_by(case: &Case, rule: Rule) {
    if rule.grants() { case.is_granted_by(rule) } else { case.is_refused_by(rule) }
}

#[test]
fn each_list_alone() {
    for list in ORDER {
        is_decided_by(&Case::alice().with(|c| list.name_alice(c)), list.rule());
        let others = Case::alice().with(|c| list.name_others(c));
        is_decided_by(&others, if list.allows() { Rule::NotAllowlisted } else { Rule::NoAllowlist });
    }
}

#[test]
fn each_list_against_every_other() {
    let table = [
        (UserAllow, UserBlock, Rule::UserAllowlist),
        (UserAllow, GroupsBlock, Rule::UserAllowlist),
        (UserAllow, GroupsAllow, Rule::UserAllowlist),
        (UserBlock, GroupsBlock, Rule::UserBlocklist),
        (UserBlock, GroupsAllow, Rule::UserBlocklist),
        (GroupsBlock, GroupsAllow, Rule::GroupsBlocklist),
    ];
    for (one, other, rule) in table {
        let both = Case::alice().with(|c| one.name_alice(c)).with(|c| other.name_alice(c));
        is_decided_by(&both, rule);
    }
}

#[test]
fn a_list_that_names_alice_against_one_that_names_others() {
    for one in ORDER {
        for other in ORDER.into_iter().filter(|other| *other != one) {
            let case = Case::alice().with(|c| one.name_alice(c)).with(|c| other.name_others(c));
            is_decided_by(&case, one.rule());
        }
    }
}

#[test]
fn every_state_of_all_four_lists() {
    for state in 0..3_u32.pow(4) {
        let mut case = Case::alice();
        let states = [state % 3, state / 3 % 3, state / 9 % 3, state / 27];
        for (list, state) in ORDER.into_iter().zip(states) {
            match state {
                0 => {}
                1 => list.name_others(&mut case),
                _ => list.name_alice(&mut case),
            }
        }
        let naming = ORDER.into_iter().zip(states).find(|(_, state)| *state == 2);
        let any_allowlist = states[0] != 0 || states[3] != 0;
        let rule = match naming {
            Some((list, _)) => list.rule(),
            None if any_allowlist => Rule::NotAllowlisted,
            None => Rule::NoAllowlist,
        };
        is_decided_by(&case, rule);
    }
}

#[test]
fn the_primary_group_and_every_other_count() {
    for group in ["users", "hpc"] {
        let blocked = Case::alice().with(|c| c.policy.groups_blocklist = vec![group.into()]);
        blocked.is_refused_by(Rule::GroupsBlocklist);
        assert!(blocked.refused().cause.contains(group));
        let allowed = Case::alice().with(|c| c.policy.groups_allowlist = vec![group.into()]);
        allowed.is_granted_by(Rule::GroupsAllowlist);
    }
}

#[test]
fn names_are_compared_exactly() {
    for name in ["Alice", "alice ", "ali", "*", ""] {
        let case = Case::alice().with(|c| c.policy.user_allowlist = vec![name.into()]);
        case.is_refused_by(Rule::NotAllowlisted);
    }
    let user_as_group = Case::alice().with(|c| c.policy.groups_allowlist = vec!["alice".into()]);
    user_as_group.is_refused_by(Rule::NotAllowlisted);
}

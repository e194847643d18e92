//! Checking a target before it is used: everything that would make an issue fail later.

use std::collections::BTreeSet;

use jit_plugin::driver::of_role;
use jit_plugin::{ConfigProblem, Error, Http, Role, Target, log};

use crate::client::Conjur;
use crate::config::{RoleConfig, TargetConfig};

/// For how many variables Conjur is asked at most.
const ASKED: usize = 200;

pub(crate) fn validate(
    http: &mut dyn Http,
    target: &Target<TargetConfig>,
    roles: &[Role<RoleConfig>],
) -> Result<(), Error> {
    let mut problems = target.config.problems();
    for role in roles {
        problems.extend(of_role(&role.name, role.config.problems()));
    }
    if problems.is_empty() {
        let mut conjur = Conjur::new(http, &target.config);
        let mut asked = 0;
        for role in roles {
            asked += role.config.variables().len();
            if asked > ASKED {
                log::warn(
                    "too many variables: the privileges on the rest are not checked",
                    &[("target", &target.name)],
                );
                break;
            }
            problems.extend(of_role(&role.name, role_problems(&mut conjur, &role.config)?));
        }
        warn_of_sharing(target, roles);
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::InvalidConfig(problems)) }
}

fn role_problems(conjur: &mut Conjur<'_>, role: &RoleConfig) -> Result<Vec<ConfigProblem>, Error> {
    let mut problems = Vec::new();
    for (path, id) in role.variables() {
        if !conjur.may("execute", id)? {
            let message = format!(
                "the variable `{id}` is not there, or the broker's host may not fetch it: \
                 `!permit` it `[ read, execute ]`"
            );
            problems.push(ConfigProblem::new(path, message));
        }
    }
    if role.rotates() && problems.is_empty() {
        let id = &role.password;
        if !conjur.may("update", id)? {
            let message = format!("the broker's host may not have `{id}` rotated: `!permit` it `update`");
            problems.push(ConfigProblem::new("variable", message));
        }
        if !conjur.variable(id)?.has_rotator {
            let message = format!(
                "nothing rotates `{id}`: give the variable the annotations `rotation/rotator` and \
                 `rotation/ttl`, or remove `rotate_before` and `rotate_on_revoke`"
            );
            problems.push(ConfigProblem::new("variable", message));
        }
    }
    Ok(problems)
}

/// A rotation takes the password from everybody who has it.
fn warn_of_sharing(target: &Target<TargetConfig>, roles: &[Role<RoleConfig>]) {
    let mut seen = BTreeSet::new();
    for role in roles.iter().filter(|role| !seen.insert(role.config.password.as_str())) {
        let rotates = roles.iter().any(|other| other.config.password == role.config.password && other.config.rotates());
        if rotates {
            let fields = [("target", target.name.as_str()), ("variable", role.config.password.as_str())];
            log::warn(
                "several roles hand out the same rotated password: each rotation ends it for the other roles",
                &fields,
            );
        }
    }
}

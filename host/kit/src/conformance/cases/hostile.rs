//! The holder of an account does what it may against its removal (HOSTILE-TENANT).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::{join, join_all};
use jit_core::driver::Feature;
use jit_core::secret::generate_password;

use crate::conformance::login::{Login, OpenSession};
use crate::conformance::stand::{Made, Stand, leave_out, skip};

/// How many log in again and again at once.
const COMERS: usize = 3;
/// Sessions that each of them keeps: the newest, since those are the ones that a removal may have missed.
const KEPT: usize = 4;
/// Before it tries again where the server takes no session for the moment.
const BETWEEN: Duration = Duration::from_millis(20);

/// The way in, for cases that leave out accounts that stand.
fn login(stand: &Stand) -> Result<&Login> {
    let login = stand.login()?;
    if stand.has(Feature::StandingAccounts) { leave_out("a standing account stays") } else { Ok(login) }
}

pub(super) async fn one_that_comes_back_stays_out(stand: &Stand) -> Result<String> {
    let login = login(stand)?;
    let ends_sessions = login.keeps_sessions() && !stand.says_that_sessions_stay();
    let made = stand.create().await?;
    // They are in before the removal begins, which may be faster than a login.
    let mut first = Vec::new();
    for _ in 0..COMERS {
        first.push(stand.session(&made).await?);
    }
    let over = AtomicBool::new(false);
    let removal = async {
        let removed = stand.revoke_in_the_end(&made.account).await;
        over.store(true, Ordering::Relaxed);
        removed
    };
    let comers = join_all(first.into_iter().map(|session| come_back(login, &made, session, &over)));
    let (removed, back) = join(removal, comers).await;
    removed?;
    let mut times = 0;
    let mut alive = 0;
    for came in back {
        let (logins, sessions) = came?;
        times += logins;
        for mut session in sessions {
            alive += usize::from(ends_sessions && session.is_alive().await);
            session.close().await;
        }
    }
    ensure!(alive == 0, "{alive} sessions that were opened during the removal still serve after it");
    stand.must_be_gone(&made).await?;
    Ok(format!("logged in {times} times meanwhile"))
}

/// Logs in until it is refused. A server that takes nobody for the moment is no refusal while the removal is under way.
async fn come_back(
    login: &Login,
    made: &Made,
    first: OpenSession,
    over: &AtomicBool,
) -> Result<(u32, VecDeque<OpenSession>)> {
    let mut kept = VecDeque::from([first]);
    let mut times = 1;
    loop {
        let ended = over.load(Ordering::Relaxed);
        match login.try_in(&made.username, &made.password).await {
            Ok(None) => return Ok((times, kept)),
            Ok(Some(_)) if ended => anyhow::bail!("the account can log in after its removal"),
            Ok(Some(session)) => {
                times += 1;
                kept.push_back(session);
                if kept.len() > KEPT
                    && let Some(oldest) = kept.pop_front()
                {
                    oldest.close().await;
                }
            }
            Err(error) if ended => return Err(error.context("after the removal, the server does not say no")),
            Err(_) => tokio::time::sleep(BETWEEN).await,
        }
    }
}

pub(super) async fn one_that_holds_all_it_may_is_gone(stand: &Stand) -> Result<String> {
    let login = login(stand)?;
    if !login.keeps_sessions() {
        return skip("this kind of login keeps no session");
    }
    if stand.says_that_sessions_stay() {
        return leave_out("the driver says that sessions stay open after a revocation");
    }
    if login.holds().is_empty() {
        return skip("[conformance.login] holds is missing: what the account may do to hold up its removal");
    }
    let made = stand.create().await?;
    let mut sessions = Vec::new();
    for act in login.holds() {
        let mut session = stand.session(&made).await?;
        login.must(&mut session, act).await?;
        sessions.push(session);
    }
    stand.revoke_in_the_end(&made.account).await?;
    for (mut session, act) in sessions.into_iter().zip(login.holds()) {
        ensure!(!session.is_alive().await, "the session still serves after the removal: {act}");
        session.close().await;
    }
    stand.must_be_gone(&made).await?;
    Ok(String::new())
}

pub(super) async fn one_that_changes_its_password_is_gone(stand: &Stand) -> Result<String> {
    let login = login(stand)?;
    if !login.knows_change_of_password() {
        return skip("[conformance.login] change_password is missing: how the account changes its own");
    }
    let made = stand.create().await?;
    let mine = generate_password();
    stand.keep_secret(&mine);
    let mut session = stand.session(&made).await?;
    login.change_password(&mut session, &mine).await?;
    session.close().await;
    let changed = Made { account: made.account.clone(), username: made.username.clone(), password: mine };
    ensure!(
        stand.can_log_in(&changed.username, &changed.password).await? == Some(true),
        "the account cannot log in with the password that it gave itself: is change_password right?"
    );
    stand.revoke_in_the_end(&made.account).await?;
    stand.must_be_gone(&changed).await.context("with the password that it gave itself")?;
    stand.must_be_gone(&made).await?;
    Ok(String::new())
}

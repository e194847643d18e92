//! `lease revoke --all`: ends every lease of a workload, an issuer, a target or a plugin, and waits until their
//! accounts are gone. Each request ends a bounded number, whose end is durable then; a command that was stopped is
//! run again and continues with what is left.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::anyhow;
use jit_api::admin::{RevokeMany, RevokedIn, RevokedMany};
use jit_core::counted::counted;
use jit_core::ttl::Ttl;
use tokio::time::{Instant, sleep, timeout};

use super::admin::table;
use super::client::{AdminClient, SocketArg};
use super::progress::Line;
use super::{Format, Stop};

/// Leases that one request ends.
const AT_ONCE: usize = 500;
/// Leases that one request counts.
const COUNTED_AT_ONCE: usize = 1_000;
/// The most requests of one walk over the leases; a broker that never comes to an end is not asked for ever.
const MOST_REQUESTS: usize = 100_000;
/// Walks over the leases, one a second from the second on: those that are being issued can be ended a moment later.
const MOST_WALKS: usize = 60;
/// Between two looks at what is left.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the command waits for accounts at most.
const MOST_WAIT: Duration = Duration::from_secs(600);
/// How long a command that was stopped waits for its last request.
const LAST_REQUEST: Duration = Duration::from_secs(5);

/// Which leases, and how.
#[derive(clap::Args)]
pub(super) struct ManyArgs {
    /// With --all: every lease of this workload, by its name.
    #[arg(long)]
    workload: Option<String>,
    /// With --all: only of workloads of this issuer, by its name in the configuration.
    #[arg(long)]
    issuer: Option<String>,
    /// With --all: every lease in this target.
    #[arg(long)]
    target: Option<String>,
    /// With --all: every lease whose account this plugin made, by its name in the configuration.
    #[arg(long)]
    plugin: Option<String>,
    /// End every lease that the filters find. Several filters narrow each other.
    #[arg(long, conflicts_with = "id")]
    all: bool,
    /// With --all: only count the leases, by target.
    #[arg(long, requires = "all")]
    dry_run: bool,
    /// With --all: do not ask.
    #[arg(long, short, requires = "all")]
    yes: bool,
    /// With --all: how long to wait for accounts while their number does not fall.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    wait: Ttl,
    /// Output format, with --all.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// What was found or done, by target.
type Targets = BTreeMap<String, RevokedIn>;

impl ManyArgs {
    /// Whether several leases are meant.
    ///
    /// # Errors
    /// With a sentence for arguments that do not belong together.
    pub(super) fn check(&self, id: Option<&str>) -> Result<bool, String> {
        let filters = self.filters();
        match (id, filters.as_slice(), self.all) {
            (Some(_), [], false) => Ok(false),
            (Some(_), _, _) => Err("one lease is named: give its id alone, or filters with --all".to_owned()),
            (None, [], false) => Err("which lease? Give its id, or a filter such as --workload with --all".to_owned()),
            (None, [], true) => {
                Err("--all needs a filter: --workload, --issuer, --target or --plugin. To end every lease, do so for \
                     one target after the other"
                    .to_owned())
            }
            (None, [..], false) => Err(format!(
                "a filter may find many leases: add --all to end every lease {}, and --dry-run to count them first",
                self.meant()
            )),
            (None, [..], true) => Ok(true),
        }
    }

    fn filters(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("of workload", &self.workload),
            ("of issuer", &self.issuer),
            ("in target", &self.target),
            ("made by plugin", &self.plugin),
        ];
        all.into_iter().filter_map(|(words, name)| Some((words, name.as_deref()?))).collect()
    }

    /// Which leases, in words. Names are quoted: they may hold anything.
    fn meant(&self) -> String {
        let filters = self.filters();
        filters.iter().map(|(words, name)| format!("{words} {name:?}")).collect::<Vec<_>>().join(" ")
    }

    fn asked(&self, dry_run: bool) -> RevokeMany {
        RevokeMany {
            workload: self.workload.clone(),
            issuer: self.issuer.clone(),
            target: self.target.clone(),
            plugin: self.plugin.clone(),
            dry_run,
            limit: if dry_run { COUNTED_AT_ONCE } else { AT_ONCE },
            cursor: None,
        }
    }
}

/// Sums over all targets.
fn sum(targets: &Targets) -> RevokedIn {
    let mut all = RevokedIn::default();
    targets.values().for_each(|one| all.add(*one));
    all
}

fn leases(count: u64) -> String {
    counted(count, "lease", "leases")
}

/// One walk over all leases that are meant, request by request. `after` hears of each request's sums so far, and says
/// whether to continue. Returns what was done, and whether the walk came to its end.
async fn walk(
    mut ask: impl AsyncFnMut(&RevokeMany) -> Result<RevokedMany, Stop>,
    mut asked: RevokeMany,
    mut after: impl FnMut(&Targets) -> bool,
) -> Result<(Targets, bool), Stop> {
    let mut done = Targets::new();
    for _ in 0..MOST_REQUESTS {
        let reply = ask(&asked).await?;
        for (target, one) in reply.targets {
            done.entry(target).or_default().add(one);
        }
        if !after(&done) {
            return Ok((done, false));
        }
        match reply.next_cursor {
            Some(cursor) => asked.cursor = Some(cursor),
            None => return Ok((done, true)),
        }
    }
    Err(anyhow!("the broker names more leases without end; is it of another version?").into())
}

/// How the recording of the ends came out.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing is left that could be ended.
    All,
    /// Leases like these are still being issued.
    MoreAreIssued,
    /// The person stopped it.
    Stopped,
}

/// Walks again until a walk finds nothing to end: what was being issued during the first is ended by the next. `ended`
/// has what was done also when this fails.
async fn end_all(
    mut ask: impl AsyncFnMut(&RevokeMany) -> Result<RevokedMany, Stop>,
    asked: &RevokeMany,
    ended: &mut Targets,
    mut after: impl FnMut(u64) -> bool,
) -> Result<Outcome, Stop> {
    for round in 0..MOST_WALKS {
        if round > 1 {
            sleep(PAUSE).await;
        }
        let before = ended.clone();
        let walked = walk(&mut ask, asked.clone(), |done| {
            ended.clone_from(&before);
            for (target, one) in done {
                // Only what this command ended adds up over the walks.
                let one = RevokedIn { ended: one.ended, standing: one.standing, ..RevokedIn::default() };
                ended.entry(target.clone()).or_default().add(one);
            }
            after(sum(ended).ended)
        });
        let (done, to_the_end) = walked.await?;
        if !to_the_end {
            return Ok(Outcome::Stopped);
        }
        let done = sum(&done);
        if done.ended == 0 && done.pending == 0 {
            return Ok(Outcome::All);
        }
    }
    Ok(Outcome::MoreAreIssued)
}

/// Asks a person on a terminal; nobody else can say yes.
fn confirmed(question: &str) -> Result<bool, Stop> {
    if !std::io::stdin().is_terminal() {
        return Err(anyhow!("{question} There is no terminal to ask on: --yes says so beforehand").into());
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Runs the command.
pub(super) async fn run(socket: &SocketArg, args: &ManyArgs) -> Result<(), Stop> {
    let client = AdminClient::new(socket)?;
    let ask = async |asked: &RevokeMany| client.post_json("/admin/leases/revoke", asked).await;
    let (found, _) = walk(ask, args.asked(true), |_| true).await?;
    let all = sum(&found);
    if args.dry_run || all == RevokedIn::default() {
        return print_found(args, &found);
    }
    let question = format!(
        "End {} {} in {}?",
        leases(all.ended + all.pending),
        args.meant(),
        counted(found.len() as u64, "target", "targets")
    );
    if all.ended + all.pending > 0 && !args.yes && !confirmed(&question)? {
        eprintln!("nothing was changed");
        return Ok(());
    }

    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let mut ended = Targets::new();
    let outcome = {
        let stop = std::cell::Cell::new(false);
        let line = Line::new("ended", "leases", args.format);
        // The request that is under way is finished, so that its number is known.
        let ask = async |asked: &RevokeMany| {
            let mut request = std::pin::pin!(ask(asked));
            tokio::select! {
                reply = &mut request => return reply,
                _ = &mut interrupt => stop.set(true),
            }
            let late = || Stop::from(anyhow!("stopped while the broker was at work"));
            timeout(LAST_REQUEST, request).await.unwrap_or_else(|_| Err(late()))
        };
        let asked = args.asked(false);
        let shown = |done: u64| {
            line.show(done, Some((all.ended + all.pending).max(done)), "");
            !stop.get()
        };
        end_all(ask, &asked, &mut ended, shown).await
    };
    let on_record = sum(&ended).ended;
    let left = (all.ended + all.pending).saturating_sub(on_record);
    match outcome {
        Err(stop) => {
            eprintln!("{}", interrupted(on_record, left));
            return Err(stop);
        }
        Ok(Outcome::Stopped) => return Err(anyhow!(interrupted(on_record, left)).into()),
        Ok(Outcome::MoreAreIssued) => {
            return Err(anyhow!(
                "{} ended, and more are still being issued: take the access away first (a policy, or the target's \
                 roles), then run this again",
                leases(on_record)
            )
            .into());
        }
        Ok(Outcome::All) => {}
    }

    let waited = tokio::select! {
        waited = wait(&client, args) => waited?,
        _ = &mut interrupt => {
            eprintln!("stopped waiting: the leases have ended, and the broker removes their accounts");
            walk(ask, args.asked(true), |_| true).await?.0
        }
    };
    print_ended(args, &ended, &waited)
}

/// What to say when it was stopped in the middle.
fn interrupted(on_record: u64, left: u64) -> String {
    format!(
        "stopped: the end of {} is on record, and they end whatever happens; about {left} are left. The same command \
         continues with them",
        leases(on_record)
    )
}

/// Waits until the accounts are gone, for as long as their number falls. Returns what is left.
async fn wait(client: &AdminClient, args: &ManyArgs) -> Result<Targets, Stop> {
    let line = Line::new("removed", "accounts", args.format);
    let begun = Instant::now();
    let (mut fewest, mut fell_at, mut most) = (u64::MAX, begun, 0);
    loop {
        let ask = async |asked: &RevokeMany| client.post_json("/admin/leases/revoke", asked).await;
        let (left, _) = walk(ask, args.asked(true), |_| true).await?;
        let ending = sum(&left).ending;
        most = most.max(ending);
        line.show(most - ending, Some(most), "");
        if ending < fewest {
            (fewest, fell_at) = (ending, Instant::now());
        }
        if ending == 0 || fell_at.elapsed() > args.wait.duration() || begun.elapsed() > MOST_WAIT {
            return Ok(left);
        }
        sleep(PAUSE).await;
    }
}

fn print_found(args: &ManyArgs, found: &Targets) -> Result<(), Stop> {
    if args.format == Format::Json {
        println!("{}", serde_json::to_string_pretty(&serde_json::json!({"dry_run": args.dry_run, "targets": found}))?);
        return Ok(());
    }
    if found.is_empty() {
        println!("no lease {}; nothing was changed", args.meant());
        return Ok(());
    }
    let mut table = table(&["TARGET", "ACTIVE", "BEING ISSUED", "BEING REMOVED"]);
    for (target, one) in found {
        table.add_row([target, &one.ended.to_string(), &one.pending.to_string(), &one.ending.to_string()]);
    }
    println!("{table}");
    let all = sum(found);
    println!("would end {}; nothing was changed", leases(all.ended + all.pending));
    Ok(())
}

/// Says what was done, and fails while accounts are left: a script must not take them for gone.
fn print_ended(args: &ManyArgs, ended: &Targets, left: &Targets) -> Result<(), Stop> {
    let (done, waiting) = (sum(ended), sum(left).ending);
    if args.format == Format::Json {
        let report = serde_json::json!({"dry_run": false, "targets": ended, "left": left});
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        let gone = match (waiting, done.standing) {
            (0, 0) => "; their accounts are gone",
            (0, _) => "; the accounts that were made for them are gone",
            _ => "",
        };
        println!("ended {} {}{gone}", leases(done.ended), args.meant());
    }
    if done.standing > 0 {
        eprintln!(
            "{} of them had a standing account: its credential works until it is changed. `jit-broker rotation now` \
             changes a rotating account's",
            done.standing
        );
    }
    if waiting == 0 {
        return Ok(());
    }
    let mut where_to_look = String::new();
    for (target, one) in left.iter().filter(|(_, one)| one.ending > 0) {
        where_to_look.push_str(&format!(
            "\n  {target}: {}; `jit-broker lease list --target {target} --state revoking` says why",
            counted(one.ending, "account", "accounts")
        ));
    }
    Err(anyhow!(
        "{} not removed yet. The broker tries until they are; `jit-broker status` says whether a target is away:\
         {where_to_look}",
        counted(waiting, "account is", "accounts are")
    )
    .into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Parsed {
        id: Option<String>,
        #[command(flatten)]
        many: ManyArgs,
    }

    fn parsed(arguments: &[&str]) -> Parsed {
        Parsed::try_parse_from(["revoke"].iter().chain(arguments)).unwrap_or_else(|error| panic!("{error}"))
    }

    fn in_target(target: &str, one: RevokedIn, next: Option<&str>) -> RevokedMany {
        RevokedMany { targets: [(target.to_owned(), one)].into(), next_cursor: next.map(str::to_owned) }
    }

    fn ended(count: u64) -> RevokedIn {
        RevokedIn { ended: count, ..RevokedIn::default() }
    }

    #[test]
    fn a_filter_alone_ends_nothing_and_neither_does_all_alone() {
        let said = |arguments: &[&str]| {
            let parsed = parsed(arguments);
            parsed.many.check(parsed.id.as_deref())
        };
        assert_eq!(said(&["lease_1"]), Ok(false));
        assert_eq!(said(&["--workload", "a", "--target", "b", "--all"]), Ok(true));
        for (arguments, sentence) in [
            (&["--workload", "a\n\u{1b}[31m"][..], "add --all to end every lease of workload \"a\\n\\u{1b}[31m\""),
            (&["--all"], "--all needs a filter"),
            (&[], "which lease?"),
            (&["lease_1", "--target", "b"], "give its id alone"),
        ] {
            let refused = said(arguments).unwrap_err();
            assert!(refused.contains(sentence), "{refused}");
        }
        assert!(Parsed::try_parse_from(["revoke", "lease_1", "--all"]).is_err());
        assert!(Parsed::try_parse_from(["revoke", "--target", "b", "--dry-run"]).is_err(), "--dry-run is of --all");
    }

    #[tokio::test(start_paused = true)]
    async fn walks_go_on_until_one_finds_nothing_to_end() {
        let mut replies = vec![
            // Two requests, and one lease that is being issued.
            in_target("a", ended(500), Some("first")),
            in_target("b", RevokedIn { pending: 1, ..ended(2) }, None),
            in_target("b", RevokedIn { ending: 2, ..ended(1) }, None),
            in_target("b", RevokedIn { ending: 3, ..RevokedIn::default() }, None),
        ];
        replies.reverse();
        let (mut cursors, mut all, mut shown) = (Vec::new(), Targets::new(), Vec::new());
        let ask = async |asked: &RevokeMany| {
            cursors.push(asked.cursor.clone());
            Ok(replies.pop().unwrap())
        };
        let outcome = end_all(ask, &RevokeMany::default(), &mut all, |done| {
            shown.push(done);
            true
        })
        .await;
        assert!(matches!(outcome, Ok(Outcome::All)));
        assert_eq!(all, Targets::from([("a".to_owned(), ended(500)), ("b".to_owned(), ended(3))]));
        assert_eq!(shown, [500, 502, 503, 503]);
        assert_eq!(cursors, [None, Some("first".to_owned()), None, None]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_and_a_failure_keep_what_was_done() {
        let mut all = Targets::new();
        let ask = async |_: &RevokeMany| Ok(in_target("a", ended(500), Some("next")));
        let outcome = end_all(ask, &RevokeMany::default(), &mut all, |done| done < 1_000).await;
        assert!(matches!(outcome, Ok(Outcome::Stopped)));
        assert_eq!(sum(&all).ended, 1_000);

        let (mut all, mut requests) = (Targets::new(), 0);
        let ask = async |_: &RevokeMany| {
            requests += 1;
            if requests < 3 { Ok(in_target("a", ended(500), Some("next"))) } else { Err(anyhow!("gone").into()) }
        };
        assert!(end_all(ask, &RevokeMany::default(), &mut all, |_| true).await.is_err());
        assert_eq!(sum(&all).ended, 1_000);
        let said = interrupted(1_000, 9_000);
        assert!(said.contains("1000 leases is on record") && said.contains("9000 are left"), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_workload_that_goes_on_asking_does_not_keep_the_command_for_ever() {
        let (mut all, begun) = (Targets::new(), Instant::now());
        let ask = async |_: &RevokeMany| Ok(in_target("a", ended(1), None));
        let outcome = end_all(ask, &RevokeMany::default(), &mut all, |_| true).await;
        assert!(matches!(outcome, Ok(Outcome::MoreAreIssued)));
        assert_eq!(sum(&all).ended, MOST_WALKS as u64);
        assert!(begun.elapsed() < Duration::from_secs(120));
    }
}

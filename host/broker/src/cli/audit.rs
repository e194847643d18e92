//! `audit show`, `verify`, `export`, `key`. They read the store's file, so they work beside a
//! running broker and without one.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use jit_core::ttl::Ttl;
use jit_tlog::checkpoint::{Checkpoint, LogKey, Origin, VerifierKey};
use serde_json::Value;

use jit_core::counted::counted;

use super::admin::table;
use super::client::{AdminClient, SocketArg};
use super::progress::Line;
use super::{ConfigArg, Format, Stop, block_on};
use jit_assembly::compose::{self, Mode};
use jit_assembly::store;
use jit_config::Config;
use jit_ledger::audit::archive::Segment;
use jit_ledger::audit::export_file;
use jit_ledger::audit::key;
use jit_ledger::audit::sources::{ExportSource, LogSource, PAGE};
use jit_ledger::audit::verify::{Options, Progress, verify};

#[derive(clap::Subcommand)]
pub(super) enum AuditCommand {
    /// Show records, newest last. In a wide terminal the table has lease and request; in a pipe it always has.
    #[command(
        after_help = "Examples:\n  jit-broker audit show --last 20\n  jit-broker audit show --lease lease_01jd3x7k2m9v5q8w4r6t0y1z3b --format json\n  jit-broker audit show --event issue.denied --since 1h\n  jit-broker audit show --request req_01m8ngmmg1ydnwb07w6ax3p19a    # as the reply and the log have it"
    )]
    Show {
        #[command(flatten)]
        log: LogArg,
        /// Maximum number of matching records, counted from the newest.
        #[arg(long, default_value_t = 50)]
        last: usize,
        /// Only records of this lease.
        #[arg(long)]
        lease: Option<String>,
        /// Only this event, such as issue.granted; `issue.` selects all events that begin with it.
        #[arg(long)]
        event: Option<String>,
        /// Only records of this workload.
        #[arg(long)]
        workload: Option<String>,
        /// Only records about this target.
        #[arg(long)]
        target: Option<String>,
        /// Only records of this request.
        #[arg(long, value_name = "ID")]
        request: Option<String>,
        /// Only records that are younger than this.
        #[arg(long, value_name = "DURATION")]
        since: Option<Ttl>,
        /// Output format.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Recompute the whole log and check every signature. Exits with 3 if it was changed.
    #[command(
        after_help = "Examples:\n  jit-broker audit verify --config broker.toml\n  jit-broker audit verify --jsonl audit.jsonl --key jit-broker+4f2a91c0+AXx…   # offline, from an export\n  jit-broker audit verify --against kept.checkpoint                            # finds a log that was cut or rolled back"
    )]
    Verify {
        #[command(flatten)]
        log: LogArg,
        /// Verify an exported file instead of the store.
        #[arg(long, value_name = "FILE")]
        jsonl: Option<PathBuf>,
        /// The verifier key that is trusted (`audit key --show` prints it); by default that of the
        /// configured signing key.
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// Also compare with a checkpoint that was kept elsewhere.
        #[arg(long, value_name = "FILE")]
        against: Option<PathBuf>,
        /// The folder of archived segments; by default the one of `[audit]` archive.
        #[arg(long, value_name = "DIR", conflicts_with = "jsonl")]
        archive: Option<PathBuf>,
    },
    /// Move the oldest records into archive segments now. The broker does this by itself every ten minutes.
    #[command(
        after_help = "Examples:\n  jit-broker audit archive              # what is older than [audit] archive says\n  jit-broker audit archive --keep 30d"
    )]
    Archive {
        #[command(flatten)]
        socket: SocketArg,
        /// Records younger than this stay in the store.
        #[arg(long, value_name = "DURATION")]
        keep: Option<Ttl>,
        /// Output format.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Write all records as JSON lines, and the signed checkpoint beside them.
    #[command(after_help = "Example:\n  jit-broker audit export --out audit.jsonl    # and audit.jsonl.checkpoint")]
    Export {
        #[command(flatten)]
        log: LogArg,
        /// The file to write; it must not exist yet.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make the signing key, or print the verifier key of an existing one.
    #[command(
        after_help = "Examples:\n  jit-broker audit key data/audit.key            # makes it\n  jit-broker audit key data/audit.key --show     # prints the key that others verify with"
    )]
    Key {
        /// The key's file.
        file: PathBuf,
        /// Print the existing key's verifier key instead of making a key.
        #[arg(long)]
        show: bool,
        /// The log's name, as `[audit]` origin has it.
        #[arg(long, default_value = "jit-broker")]
        origin: String,
    },
}

pub(super) fn run(command: AuditCommand) -> Result<(), Stop> {
    match command {
        AuditCommand::Show { log, last, lease, event, workload, target, request, since, format } => {
            let since = since
                .and_then(|since| Timestamp::now().checked_sub(SignedDuration::from_secs(since.seconds().into())).ok());
            let filter = Filter { lease, event, workload, target, request, since };
            block_on(show(&log, last, filter, format))?;
            Ok(())
        }
        AuditCommand::Verify { log, jsonl, key, against, archive } => verify_log(&log, jsonl, key, against, archive),
        AuditCommand::Archive { socket, keep, format } => block_on(async { Ok(archive(&socket, keep, format).await) })?,
        AuditCommand::Export { log, out } => Ok(block_on(export_log(&log, out))?),
        AuditCommand::Key { file, show, origin } => Ok(signing_key(&file, show, &origin)?),
    }
}

/// Where the audit log is.
#[derive(clap::Args, Debug, Clone)]
pub(super) struct LogArg {
    #[command(flatten)]
    config: ConfigArg,
    /// The store's file, such as data/jit.db; by default that of the configuration, which is then not needed.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
}

impl LogArg {
    /// The log, without a configuration where the store's file is named.
    fn source(&self) -> anyhow::Result<Arc<dyn LogSource>> {
        match &self.store {
            Some(file) => Ok(store::log_in(file)),
            None => Ok(store::log(&self.load()?.store)),
        }
    }

    /// The log, where a configuration was read for something else.
    fn of(&self, config: &Config) -> Arc<dyn LogSource> {
        self.store.as_deref().map_or_else(|| store::log(&config.store), store::log_in)
    }

    /// The configuration. If it cannot be read, the error names `--store`.
    fn load(&self) -> anyhow::Result<Config> {
        Config::load(&self.config.config).map_err(|problems| {
            eprintln!(
                "the audit log can be read whatever the configuration says now: --store FILE, the path in its \
                 `[store] url`\n"
            );
            problems.into()
        })
    }
}

struct Filter {
    lease: Option<String>,
    event: Option<String>,
    workload: Option<String>,
    target: Option<String>,
    request: Option<String>,
    since: Option<Timestamp>,
}

impl Filter {
    fn matches(&self, record: &Value) -> bool {
        let is = |field: &str, wanted: &Option<String>| wanted.as_ref().is_none_or(|wanted| record[field] == **wanted);
        let event = self.event.as_ref().is_none_or(|wanted| {
            let event = record["event"].as_str().unwrap_or("");
            event == wanted || (wanted.ends_with('.') && event.starts_with(wanted.as_str()))
        });
        let young = self.since.is_none_or(|since| {
            // A record without a time that can be read is shown: nothing is hidden for its form.
            let written = record["timestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
            written.is_none_or(|written| written >= since)
        });
        event
            && young
            && is("lease_id", &self.lease)
            && is("workload", &self.workload)
            && is("target_db", &self.target)
            && is("request_id", &self.request)
    }
}

async fn show(log: &LogArg, last: usize, filter: Filter, format: Format) -> anyhow::Result<()> {
    let mut records = log.source()?.open().await?;
    let mut found = std::collections::VecDeque::new();
    loop {
        let page = records.page(PAGE).await?;
        if page.is_empty() {
            break;
        }
        for stored in page {
            let record: Value =
                serde_json::from_slice(&stored.record).context("a record is no JSON: run `audit verify`")?;
            if filter.matches(&record) {
                if found.len() == last.max(1) {
                    found.pop_front();
                }
                found.push_back((stored.record, record));
            }
        }
    }
    if format == Format::Json {
        let mut out = std::io::stdout().lock();
        for (json, _) in found {
            out.write_all(&[&json[..], b"\n"].concat())?;
        }
        return Ok(());
    }
    println!("{}", records_table(found.iter().map(|(_, record)| record)));
    Ok(())
}

/// From how many columns of a terminal the table has the lease's id, and from how many the request's.
const WITH_LEASE: u16 = 180;
const WITH_REQUEST: u16 = 215;

/// Records as a table.
fn records_table<'r>(records: impl ExactSizeIterator<Item = &'r Value>) -> String {
    if records.len() == 0 {
        return "no record matches".to_owned();
    }
    // A pipe has no width: what reads it wants all of it.
    let width = table(&[]).width();
    let has = |least: u16| width.is_none_or(|width| width >= least);
    let more = [(has(WITH_LEASE), "LEASE", "lease_id"), (has(WITH_REQUEST), "REQUEST", "request_id")];
    let more: Vec<(&str, &str)> =
        more.into_iter().filter(|(fits, ..)| *fits).map(|(_, head, field)| (head, field)).collect();
    let heads: Vec<&str> = more.iter().map(|(head, _)| *head).collect();
    let mut table =
        table(&[&["SEQ", "TIME", "EVENT", "WORKLOAD", "TARGET", "ROLE", "ACCOUNT"][..], &heads, &["WHY"]].concat());
    for record in records {
        let text = |field: &str| record[field].as_str().unwrap_or("").to_owned();
        let time = text("timestamp").get(..19).map(|time| format!("{time}Z")).unwrap_or_default();
        let why = ["error", "cause", "reason", "plugin"].iter().find_map(|field| record[*field].as_str()).unwrap_or("");
        let mut row = vec![record["seq"].to_string(), time];
        row.extend(["event", "workload", "target_db", "role", "ephemeral_id"].map(text));
        row.extend(more.iter().map(|(_, field)| text(field)));
        row.push(shortened(why, LONGEST_WHY));
        table.add_row(row);
    }
    table.to_string()
}

/// The most characters of a reason in the table; JSON has all of it.
const LONGEST_WHY: usize = 60;

/// The text, cut with an ellipsis where it is longer.
fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
    }
}

/// The key that checks the log of a configuration.
pub(super) fn own_key(config: &Config) -> anyhow::Result<VerifierKey> {
    let origin = Origin::new(config.audit.origin.clone()).context("[audit] origin")?;
    Ok(compose::audit_key(&config.audit.signing_key, Mode::default())?.verifier(&origin))
}

fn verify_log(
    log: &LogArg,
    jsonl: Option<PathBuf>,
    key: Option<String>,
    against: Option<PathBuf>,
    mut archive: Option<PathBuf>,
) -> Result<(), Stop> {
    let (source, verifier): (Arc<dyn LogSource>, _) = match (jsonl, key) {
        (Some(records), key) => {
            let verifier = match key {
                Some(key) => trusted(&key)?,
                // An export is most often verified where there is no configuration.
                None => Config::load(&log.config.config)
                    .map_err(anyhow::Error::from)
                    .and_then(|config| own_key(&config))
                    .context("the key of the configuration cannot be read; --key names the one that is trusted")?,
            };
            (Arc::new(ExportSource { records, checkpoint: None }), verifier)
        }
        (None, Some(key)) if log.store.is_some() => (log.source()?, trusted(&key)?),
        (None, key) => {
            let config = log.load()?;
            let verifier = match key {
                Some(key) => trusted(&key)?,
                None => own_key(&config)?,
            };
            let configured = config.audit.archive.as_ref().map(|archive| archive.path.clone());
            archive = archive.or(configured.filter(|folder| folder.is_dir()));
            (log.of(&config), verifier)
        }
    };
    let kept = match against {
        Some(file) => {
            let note = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            Some(note)
        }
        None => None,
    };
    let options = Options { verifier, kept, archive };
    let report = block_on(async {
        let line = Line::new("verified", "records", Format::Table);
        let show = |at: Progress| line.show(at.done, Some(at.total).filter(|total| *total > 0), "");
        Ok(verify(&*source, &options, show).await)
    })??;
    if report.is_intact() {
        let (records, checkpoints) = (
            counted(report.records, "record", "records"),
            counted(report.checkpoints, "checkpoint agrees", "checkpoints agree"),
        );
        println!("intact: {records}, {checkpoints}, root {}", report.root);
        if report.unread > 0 {
            println!("the first {} are archived and were not read: --archive names their folder", report.unread);
        }
        return Ok(());
    }
    println!("NOT INTACT: the log is not what was signed");
    for finding in &report.findings {
        println!("  - {finding}");
    }
    Err(Stop::FoundWrong)
}

async fn archive(socket: &SocketArg, keep: Option<Ttl>, format: Format) -> Result<(), Stop> {
    let query = keep.map_or_else(String::new, |keep| format!("?keep={keep}"));
    let segments: Vec<Segment> = AdminClient::new(socket)?.post(&format!("/admin/archive{query}")).await?;
    match format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&segments)?),
        Format::Table if segments.is_empty() => {
            println!("nothing to archive: all records are younger, or not yet exported")
        }
        Format::Table => {
            for segment in &segments {
                println!("{}: records {} to {}", segment.path.display(), segment.from, segment.to - 1);
            }
            println!("keep the segments with their checkpoints: `jit-broker audit verify` joins them with the store");
        }
    }
    Ok(())
}

fn trusted(key: &str) -> anyhow::Result<VerifierKey> {
    key.parse().context("--key is no verifier key: it looks like name+4f2a91c0+AXx…")
}

async fn export_log(log: &LogArg, out: PathBuf) -> anyhow::Result<()> {
    // The checkpoint first: it speaks of no more than what is read after it.
    let mut records = log.source()?.open().await?;
    let checkpoint = records.tail().await?.note;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let file = options.open(&out).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            anyhow::anyhow!("{} is there already: choose another name, or move that file away", out.display())
        }
        _ => anyhow::Error::new(error).context(format!("cannot make {}", out.display())),
    })?;
    let mut file = std::io::BufWriter::new(file);
    let size = match &checkpoint {
        Some(note) => Checkpoint::read_unverified(note).context("the stored checkpoint is not a signed note")?.size,
        None => 0,
    };
    let line = Line::new("exported", "records", Format::Table);
    let mut written = 0;
    while written < size {
        line.show(written, Some(size), "");
        let page = records.page(PAGE).await?;
        if page.is_empty() {
            break;
        }
        for stored in page.into_iter().take_while(|stored| stored.number() < size) {
            file.write_all(&stored.record)?;
            file.write_all(b"\n")?;
            written += 1;
        }
    }
    file.flush()?;
    drop(line);
    let beside = export_file::checkpoint_path(&out);
    std::fs::write(&beside, checkpoint.unwrap_or_default())?;
    println!("{}: {written} records; the signed checkpoint is in {}", out.display(), beside.display());
    Ok(())
}

fn signing_key(file: &std::path::Path, show: bool, origin: &str) -> anyhow::Result<()> {
    let origin = Origin::new(origin).context("--origin")?;
    let made: LogKey = match (show, file.exists()) {
        (true, _) | (false, true) => key::load(file)?,
        (false, false) => {
            let made = key::generate(file)?;
            eprintln!("made {} (0600); keep a copy where the broker's machine cannot reach it", file.display());
            made
        }
    };
    println!("{}", made.verifier(&origin));
    Ok(())
}

//! All cells of the comparison, and the table in the documentation.

use crate::{
    network::{PATHS, Path, Transport},
    outcome::{Measure, Policy, Summary},
};
use std::{
    fmt::Write,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/heartbeats.md");
const BEGIN: &str = "<!-- table: begin -->\n";
const END: &str = "<!-- table: end -->\n";

#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub transport: Transport,
    pub path: Path,
    pub policy: Policy,
}

pub struct Table(Vec<(Cell, Summary)>);

impl Table {
    /// Spread over the cores; a cell depends on nothing but itself.
    pub fn measure() -> Self {
        let cells = all_cells();
        let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(&cell) = cells.get(index) else { break };
                        let stream = u64::try_from(index).unwrap();
                        let summary = Summary::measure(cell.policy, cell.path, cell.transport, stream);
                        done.lock().unwrap().push((index, cell, summary));
                    }
                });
            }
        });
        let mut done = done.into_inner().unwrap();
        done.sort_unstable_by_key(|&(index, ..)| index);
        Self(done.into_iter().map(|(_, cell, summary)| (cell, summary)).collect())
    }

    pub fn cells(&self) -> impl Iterator<Item = (Cell, Summary)> {
        self.0.iter().copied()
    }

    pub fn summary(&self, policy: Policy, path: &str, transport: Transport) -> Summary {
        let wanted =
            |cell: &Cell| cell.policy == policy && cell.path.name == path && cell.transport == transport;
        self.cells().find(|(cell, _)| wanted(cell)).map(|(_, summary)| summary).expect("a cell of the table")
    }

    /// What each cell is worse in than the fixed heartbeat on the same path.
    pub fn trades(&self) -> impl Iterator<Item = (Cell, Vec<Measure>)> {
        self.cells().map(|(cell, summary)| (cell, summary.worse_than(self.rival(cell))))
    }

    fn rival(&self, cell: Cell) -> Summary {
        self.summary(Policy::Fixed, cell.path.name, cell.transport)
    }

    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for (transport, title) in
            [(Transport::Udp, "WebTransport (UDP)"), (Transport::Tcp, "WebSocket (TCP)")]
        {
            write!(text, "\n{title}:\n\n").unwrap();
            text += "| path | heartbeat | pings per hour | noticed after, p50 | p99 | false alarms per 1,000 h |\n";
            text += "|---|---|--:|--:|--:|--:|\n";
            for (cell, summary) in self.cells().filter(|(cell, _)| cell.transport == transport) {
                text += &self.line(cell, summary);
            }
        }
        text + "\n"
    }

    fn line(&self, cell: Cell, summary: Summary) -> String {
        let worse = summary.worse_than(self.rival(cell));
        let path = if cell.policy == Policy::Fixed { cell.path.name } else { "" };
        let mut line = format!("| {path} | {}", cell.policy.name());
        for measure in Measure::ALL {
            let mark = if worse.contains(&measure) { " †" } else { "" };
            write!(line, " | {}{mark}", summary.text(measure)).unwrap();
        }
        line + " |\n"
    }
}

fn all_cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for transport in [Transport::Udp, Transport::Tcp] {
        for path in PATHS {
            cells.extend(Policy::ALL.map(|policy| Cell { transport, path, policy }));
        }
    }
    cells
}

/// Fails where the document's table is another one, or puts the new one there with `UPDATE_GOLDEN=1`.
pub fn compare_with_document(table: &str) {
    let document = std::fs::read_to_string(DOCUMENT).expect("docs/heartbeats.md is there");
    let (before, rest) = document.split_once(BEGIN).expect("the document has the table's begin");
    let (documented, after) = rest.split_once(END).expect("the document has the table's end");
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::write(DOCUMENT, format!("{before}{BEGIN}{table}{END}{after}"))
            .expect("the document is writable");
    } else {
        let hint = "run again with UPDATE_GOLDEN=1 if the change is meant";
        assert_eq!(documented, table, "docs/heartbeats.md has another table: {hint}");
    }
}

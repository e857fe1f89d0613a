//! What a mirror knows of a partition on both sides.

use crate::presence::{
    RESTORED,
    answers::{Census, Renewed},
};
use skywave_redis::heard::Heard;
use tokio::time::Instant;

/// A session may be on its way between the regions when it is counted; twice in a row it is not.
const MISMATCHES: u8 = 2;

#[derive(Default)]
pub(crate) struct Partition {
    life_there: Option<String>,
    life_here: Option<String>,
    /// When it could last be asked there.
    pub(crate) reached_at: Option<Instant>,
    /// Which nodes hold members there, if it could be asked when it was looked at last …
    holders: Option<Vec<String>>,
    /// … and whether it could be asked here.
    is_counted: bool,
    /// Of the changes there, which are applied here, or on their way.
    heard: Heard,
    /// How many were held there after which change; not counted here yet, as that change was not heard.
    counted_there: Option<Counted>,
    mismatches: u8,
    compare_at: Option<Instant>,
}

/// How many sessions were held after the change of that number.
#[derive(Debug, Clone, Copy)]
struct Counted {
    said: u64,
    held: usize,
}

impl Partition {
    /// Takes note of the life there. In another one than before, its nodes say first again what they hold.
    pub(crate) fn learn(&mut self, life: &str) {
        if is_other(&mut self.life_there, life) {
            (self.heard, self.counted_there) = (Heard::default(), None);
            self.compare_at = Some(Instant::now() + RESTORED);
        }
    }

    /// Members are to be compared, now unless it is settled when.
    pub(crate) fn compare(&mut self) {
        self.compare_at.get_or_insert_with(Instant::now);
    }

    /// Which nodes' members are to be compared now, if any are: not before both sides could be asked.
    pub(crate) fn take_comparison(&mut self) -> Option<Vec<String>> {
        let is_due = self.compare_at.is_some_and(|at| at <= Instant::now());
        let holders = self.holders.take_if(|_| is_due && self.is_counted)?;
        self.compare_at = None;
        Some(holders)
    }

    /// Takes note that this change is on its way; answers how many should be held after it, if that was counted.
    pub(crate) fn heard(&mut self, number: u64) -> Option<usize> {
        if self.heard.news(number) {
            self.compare();
        }
        self.counted_there
            .take_if(|counted| counted.said <= number)
            .filter(|counted| counted.said == number)
            .map(|counted| counted.held)
    }

    /// Both sides are asked anew.
    pub(crate) fn is_asked(&mut self) {
        (self.holders, self.is_counted) = (None, false);
    }

    /// Takes note of how many are held there. Answers how many should be held here at this moment, if that is known.
    /// Changes may have been heard that are not in the count, or counted that are heard later.
    pub(crate) fn counted_there(&mut self, census: Census) -> Option<usize> {
        let Census { life, held, holders, said } = census;
        self.reached_at = Some(Instant::now());
        self.learn(&life);
        self.holders = Some(holders);
        if self.heard.counted(said) {
            self.compare();
        }
        let heard = self.heard.last();
        self.counted_there = (Some(said) > heard).then_some(Counted { said, held });
        (Some(said) == heard).then_some(held)
    }

    /// It could be asked there while members are compared, and the lease here was renewed, if that could be.
    pub(crate) fn renewed(&mut self, renewed: Option<&Renewed>) {
        self.reached_at = Some(Instant::now());
        if let Some(renewed) = renewed {
            self.counted_here(None, renewed);
        }
    }

    /// Takes note of the lease here, and of how many are held by it where so many should be.
    pub(crate) fn counted_here(&mut self, expected: Option<usize>, renewed: &Renewed) {
        self.is_counted = true;
        if is_other(&mut self.life_here, &renewed.life) || renewed.lapsed {
            self.compare();
        }
        let Some(expected) = expected else { return };
        self.mismatches = if expected == renewed.held { 0 } else { self.mismatches.saturating_add(1) };
        if self.mismatches >= MISMATCHES {
            self.mismatches = 0;
            self.compare();
        }
    }
}

fn is_other(known: &mut Option<String>, life: &str) -> bool {
    known.replace(life.to_owned()).is_some_and(|before| before != life)
}

//! Lines on their way to one reader, at most so many bytes of them. History waits for a slow reader; what is written
//! now does not, and pushes the oldest lines out.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::line::Line;

/// Most bytes of lines that wait for one reader.
const WAITING_MAX: usize = 1 << 20;
/// What a line counts beyond its text.
const LINE_COST: usize = 96;

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// A line.
    Line(Line),
    /// So many lines were pushed out here.
    Gap(u64),
    /// There are no more.
    End,
}

/// Lines on their way to one reader.
#[derive(Debug, Default)]
pub struct Feed {
    waiting: Mutex<Waiting>,
    /// Something came.
    came: Notify,
    /// Something went.
    went: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Line>,
    bytes: usize,
    lost: u64,
    ended: bool,
}

impl Waiting {
    fn put(&mut self, line: Line) {
        self.bytes += cost(&line);
        self.lines.push_back(line);
    }

    fn take(&mut self) -> Option<Line> {
        let line = self.lines.pop_front()?;
        self.bytes -= cost(&line);
        Some(line)
    }
}

fn cost(line: &Line) -> usize {
    line.text.len() + LINE_COST
}

impl Feed {
    /// Adds a line written now; the oldest make way for it.
    pub fn push(&self, line: Line) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.put(line);
        while waiting.bytes > WAITING_MAX && waiting.take().is_some() {
            waiting.lost += 1;
        }
        drop(waiting);
        self.came.notify_one();
    }

    /// Adds a line of history, once there is room.
    pub async fn push_patiently(&self, line: Line) {
        loop {
            {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if waiting.lines.is_empty() || waiting.bytes + cost(&line) <= WAITING_MAX {
                    waiting.put(line);
                    break;
                }
            }
            self.went.notified().await;
        }
        self.came.notify_one();
    }

    /// There will be no more.
    pub fn end(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.came.notify_one();
    }

    /// The next item, for the one reader.
    pub async fn next(&self) -> Item {
        loop {
            if let Some(item) = self.ready() {
                return item;
            }
            self.came.notified().await;
        }
    }

    /// The next item, if it is there.
    pub fn ready(&self) -> Option<Item> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.lost > 0 {
            return Some(Item::Gap(std::mem::take(&mut waiting.lost)));
        }
        match waiting.take() {
            Some(line) => {
                drop(waiting);
                self.went.notify_one();
                Some(Item::Line(line))
            }
            None => waiting.ended.then_some(Item::End),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line { at: jiff::Timestamp::UNIX_EPOCH, pod: "p".into(), text: text.to_owned() }
    }

    #[tokio::test]
    async fn the_oldest_lines_make_way_and_are_counted() {
        let feed = Feed::default();
        let long = "x".repeat(1000);
        for n in 0..2000 {
            feed.push(line(&format!("{n} {long}")));
        }
        feed.end();
        let Item::Gap(lost) = feed.next().await else { panic!("a gap first") };
        let mut read = 0;
        loop {
            match feed.next().await {
                Item::Line(line) => {
                    assert!(line.text.starts_with(&format!("{} ", lost + read)), "in order, without another gap");
                    read += 1;
                }
                Item::Gap(_) => panic!("one gap"),
                Item::End => break,
            }
        }
        assert_eq!(lost + read, 2000);
        assert!(read > 500 && lost > 500, "{read} {lost}");
    }

    #[tokio::test]
    async fn history_waits_for_its_reader() {
        let feed = std::sync::Arc::new(Feed::default());
        let writer = std::sync::Arc::clone(&feed);
        tokio::spawn(async move {
            for n in 0..5000 {
                writer.push_patiently(line(&format!("{n} {}", "x".repeat(1000)))).await;
            }
            writer.end();
        });
        for n in 0..5000 {
            let Item::Line(line) = feed.next().await else { panic!("a line") };
            assert!(line.text.starts_with(&format!("{n} ")));
        }
        assert_eq!(feed.next().await, Item::End);
    }

    #[tokio::test]
    async fn a_line_longer_than_the_feed_passes() {
        let feed = Feed::default();
        feed.push_patiently(line(&"x".repeat(WAITING_MAX * 2))).await;
        assert!(matches!(feed.next().await, Item::Line(_)));
    }
}

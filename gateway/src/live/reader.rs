//! One reader's way through what happens: first how everything stands, then each change. A reader that missed something,
//! because it was slow, away for long or comes from another gateway, is told `reset` and how everything stands anew.

use std::sync::Arc;

use tokio::sync::watch;

use super::hub::{Happening, Hub};

/// How everything stands at this moment, made as it is read.
pub type Standing = Box<dyn Iterator<Item = Happening> + Send>;

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// With how everything stands.
    Fresh,
    /// After this number.
    After(u64),
    /// After a number of another gateway's count.
    Elsewhere,
}

/// One reader.
pub struct Reader {
    hub: Arc<Hub>,
    namespace: String,
    standing: Box<dyn Fn() -> Standing + Send>,
    wake: watch::Receiver<()>,
    /// All up to here was read.
    at: u64,
    /// What is left to say of how everything stands.
    left: Option<Standing>,
    /// What has to be said first.
    first: String,
}

impl Drop for Reader {
    fn drop(&mut self) {
        // A receiver of nothing in its place, so that this one does not count any more.
        self.wake = watch::Sender::new(()).subscribe();
        self.hub.leave(&self.namespace);
    }
}

impl Reader {
    /// A reader of this namespace; `standing` tells how everything in it stands.
    pub fn new(
        hub: Arc<Hub>,
        namespace: String,
        begin: Begin,
        standing: impl Fn() -> Standing + Send + 'static,
    ) -> Self {
        let (wake, newest) = hub.listen(&namespace);
        let first = "retry: 1000\n\n".to_owned();
        let standing = Box::new(standing);
        let mut reader = Self { hub, namespace, standing, wake, at: newest, left: None, first };
        match begin {
            Begin::Fresh => reader.left = Some((reader.standing)()),
            Begin::After(number) => reader.at = number,
            Begin::Elsewhere => reader.reset("these events were counted by another gateway, or before a restart"),
        }
        reader
    }

    /// Begins anew.
    fn reset(&mut self, why: &str) {
        // First the place, then how things stand: what happens in between is told twice rather than not.
        self.at = self.hub.newest();
        self.left = Some((self.standing)());
        let data = serde_json::json!({ "reason": why });
        self.first.push_str(&format!("event: reset\ndata: {data}\n\n"));
    }

    /// What to write next, about so many bytes, once there is something.
    pub async fn next(&mut self, chunk: usize) -> String {
        loop {
            self.wake.borrow_and_update();
            let text = self.ready(chunk);
            if !text.is_empty() {
                return text;
            }
            if self.wake.changed().await.is_err() {
                // The hub keeps the sender for as long as somebody listens.
                std::future::pending::<()>().await;
            }
        }
    }

    fn ready(&mut self, chunk: usize) -> String {
        let mut text = std::mem::take(&mut self.first);
        while let Some(left) = &mut self.left {
            if text.len() >= chunk {
                return text;
            }
            match left.next() {
                // Without an id: who breaks off here has not read how everything stands.
                Some(happening) => text.push_str(&render(&happening, None)),
                None => {
                    self.left = None;
                    text.push_str(&format!("id: {}\nevent: synced\ndata: {{}}\n\n", self.hub.id(self.at)));
                }
            }
        }
        match self.hub.after(&self.namespace, self.at) {
            Ok((batch, on)) => {
                for (number, happening) in &batch {
                    text.push_str(&render(happening, Some(self.hub.id(*number))));
                }
                self.at = on;
            }
            Err(_) => {
                self.reset("some events are not kept any more");
                text.push_str(&std::mem::take(&mut self.first));
            }
        }
        text
    }

    /// A sign of life, with the place to go on after once everything before was told.
    #[must_use]
    pub fn ping(&self) -> String {
        match self.left {
            None => format!("id: {}\nevent: ping\ndata: {{}}\n\n", self.hub.id(self.at)),
            Some(_) => "event: ping\ndata: {}\n\n".to_owned(),
        }
    }
}

fn render(happening: &Happening, id: Option<String>) -> String {
    let Happening { kind, data } = happening;
    match id {
        Some(id) => format!("id: {id}\nevent: {kind}\ndata: {data}\n\n"),
        None => format!("event: {kind}\ndata: {data}\n\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = 64;

    fn happening(text: &str) -> Happening {
        Happening { kind: "function", data: text.into() }
    }

    fn reader(hub: &Arc<Hub>, begin: Begin) -> Reader {
        let standing = || Box::new((0..3).map(|n| happening(&format!("s{n}")))) as Standing;
        Reader::new(Arc::clone(hub), "a".to_owned(), begin, standing)
    }

    /// All that is there.
    async fn drain(reader: &mut Reader) -> String {
        let mut text = String::new();
        while let Some(more) = futures::FutureExt::now_or_never(reader.next(CHUNK)) {
            text.push_str(&more);
        }
        text
    }

    #[tokio::test]
    async fn a_fresh_reader_hears_how_things_stand_then_changes() {
        let hub = Arc::new(Hub::default());
        hub.tell("a", "f", happening("old"));
        let mut fresh = reader(&hub, Begin::Fresh);
        let text = drain(&mut fresh).await;
        let synced = format!("id: {}\nevent: synced", hub.id(1));
        assert!(text.starts_with("retry") && text.contains("data: s2") && text.contains(&synced), "{text}");
        assert!(!text.contains("old") && !text.contains("reset"), "{text}");
        let waits = tokio::spawn(async move { fresh.next(CHUNK).await });
        hub.tell("b", "f", happening("foreign"));
        hub.tell("a", "f", happening("new"));
        let told = waits.await.unwrap();
        assert_eq!(told, format!("id: {}\nevent: function\ndata: new\n\n", hub.id(3)));
        assert_eq!(drain(&mut reader(&hub, Begin::After(1))).await.trim_start_matches("retry: 1000\n\n"), told);
    }

    #[tokio::test]
    async fn who_missed_something_is_told_so() {
        let hub = Arc::new(Hub::default());
        let mut slow = reader(&hub, Begin::Fresh);
        drain(&mut slow).await;
        for n in 0..2_000 {
            hub.tell("a", "f", happening(&n.to_string()));
        }
        for mut reader in [slow, reader(&hub, Begin::After(1)), reader(&hub, Begin::Elsewhere)] {
            let text = drain(&mut reader).await;
            assert!(text.contains("event: reset") && text.contains("data: s0"), "{text}");
            assert!(text.ends_with(&format!("id: {}\nevent: synced\ndata: {{}}\n\n", hub.id(2_000))), "{text}");
            assert_eq!(reader.ping(), format!("id: {}\nevent: ping\ndata: {{}}\n\n", hub.id(2_000)));
        }
    }
}

//! Server-sent events, out of the bytes of a stream. Bounded: an event that is too long is cut.

/// Longest event that is kept, in bytes.
const EVENT_MAX: usize = 1 << 20;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// What kind; empty means `message`.
    pub kind: String,
    /// What it says; lines are joined by line breaks.
    pub data: String,
    /// Where to go on after it.
    pub id: Option<String>,
}

/// Takes events out of bytes as they come.
#[derive(Debug, Default)]
pub struct Events {
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    after_return: bool,
}

impl Events {
    /// Takes in more bytes; gives the events that are complete now.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut complete = Vec::new();
        for &byte in bytes {
            // A line ends with CR, LF or both.
            let ends = match byte {
                b'\n' if self.after_return => {
                    self.after_return = false;
                    continue;
                }
                b'\n' | b'\r' => true,
                _ => false,
            };
            self.after_return = byte == b'\r';
            if ends {
                complete.extend(self.end_line());
            } else if self.line.len() < EVENT_MAX {
                self.line.push(byte);
            }
        }
        complete
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.kind),
            "id" => self.event.id = Some(value.to_owned()),
            "data" if self.event.data.len() < EVENT_MAX => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_however_the_bytes_are_cut() {
        let text = "retry: 1\n\nid: 7\nevent: log\ndata: {\"a\": 1}\n\n: ping\n\ndata:x\r\ndata: y\r\n\r\nevent: none\n\ndata: cut";
        let log = Event { kind: "log".into(), data: "{\"a\": 1}".into(), id: Some("7".into()) };
        let plain = Event { data: "x\ny".into(), ..Event::default() };
        for size in [1, 2, 3, 7, text.len()] {
            let mut events = Events::default();
            let got: Vec<Event> = text.as_bytes().chunks(size).flat_map(|bytes| events.take(bytes)).collect();
            assert_eq!(got, [log.clone(), plain.clone()], "{size}");
        }
    }

    #[test]
    fn an_endless_event_is_cut() {
        let mut events = Events::default();
        for _ in 0..40 {
            assert!(events.take(&[b'x'; 1 << 16]).is_empty());
        }
        assert!(events.line.len() <= EVENT_MAX);
    }
}

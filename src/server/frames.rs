//! Where an HTTP/2 connection stands, seen from its bytes: what the h2 library does not tell. It buffers frames and
//! header blocks until they are whole, however long that takes.

/// "PRI * HTTP/2.0", with which every client begins (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Length, type, flags, stream (RFC 9113, section 4.1).
const HEADER: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

/// From so many streams on that the client has reset, it is looked whether they are most of them. A client that opens
/// streams and resets them at once makes work without end, however few it has open at a time (CVE-2023-44487).
const MANY_RESETS: u64 = 500;

/// Follows the frames of a client.
#[derive(Debug, Default)]
pub struct Frames {
    /// How much of the preface was seen.
    preface: usize,
    header: [u8; HEADER],
    /// How much of the present frame's header was seen.
    seen: usize,
    /// What is left of the present frame after its header.
    left: usize,
    /// Between HEADERS and its last CONTINUATION.
    in_head: bool,
    heads: u64,
    resets: u64,
}

impl Frames {
    /// Takes bytes in the order in which they come.
    pub fn read(&mut self, mut bytes: &[u8]) {
        let preface = bytes.len().min(PREFACE.len() - self.preface);
        self.preface += preface;
        bytes = &bytes[preface..];
        while !bytes.is_empty() {
            if self.seen < HEADER {
                let part = bytes.len().min(HEADER - self.seen);
                self.header[self.seen..self.seen + part].copy_from_slice(&bytes[..part]);
                self.seen += part;
                bytes = &bytes[part..];
                if self.seen < HEADER {
                    return;
                }
                let [high, middle, low, ..] = self.header;
                self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            }
            let part = bytes.len().min(self.left);
            self.left -= part;
            bytes = &bytes[part..];
            if self.left == 0 {
                self.end();
            }
        }
    }

    /// The present frame is whole.
    fn end(&mut self) {
        self.seen = 0;
        let ends_head = self.header[4] & END_HEADERS != 0;
        match self.header[3] {
            HEADERS | CONTINUATION => {
                self.in_head = !ends_head;
                self.heads += u64::from(ends_head);
            }
            RST_STREAM => self.resets += 1,
            _ => {}
        }
    }

    /// Whether something has begun that must soon be whole: a head, or any frame but those of bodies, which have a
    /// deadline of their own.
    pub fn is_within(&self) -> bool {
        let in_frame = match self.seen {
            0 => false,
            HEADER => self.header[3] != DATA,
            _ => true,
        };
        self.in_head || in_frame
    }

    /// How many heads were whole.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether the client resets most of what it asks for.
    pub fn resets_too_much(&self) -> bool {
        self.resets >= MANY_RESETS && self.resets * 2 > self.heads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn a_head_is_followed_through_its_continuations_however_it_is_cut() {
        let conversation = [
            PREFACE.to_vec(),
            frame(0x4, 0, &[0; 12]),
            frame(HEADERS, 0, b"begin"),
            frame(CONTINUATION, 0, b"more"),
            frame(CONTINUATION, END_HEADERS, b"end"),
            frame(DATA, 0, &[7; 300]),
        ]
        .concat();
        let head_begins = PREFACE.len() + 21;
        let head_ends = head_begins + 14 + 13 + 12;
        for step in [1, 2, 5, 9, 64] {
            let mut frames = Frames::default();
            let mut at = 0;
            for part in conversation.chunks(step) {
                frames.read(part);
                at += part.len();
                if at > head_begins && at < head_ends {
                    assert!(frames.is_within(), "{at} of {step}");
                }
                if at >= head_ends + HEADER {
                    assert!(!frames.is_within(), "{at} of {step}");
                }
            }
            assert_eq!(frames.heads(), 1);
        }
    }

    #[test]
    fn an_empty_frame_and_the_boundary_between_frames_are_nothing_to_wait_for() {
        let mut frames = Frames::default();
        frames.read(PREFACE);
        frames.read(&frame(0x4, 1, b""));
        assert!(!frames.is_within());
        frames.read(&[0]);
        assert!(frames.is_within(), "a single byte of a frame");
    }

    #[test]
    fn resets_are_too_many_only_where_they_are_most_of_what_is_asked() {
        let mut frames = Frames::default();
        frames.read(PREFACE);
        let head = frame(HEADERS, END_HEADERS, b"x");
        let reset = frame(RST_STREAM, 0, &[0, 0, 0, 8]);
        for _ in 0..MANY_RESETS {
            assert!(!frames.resets_too_much());
            frames.read(&head);
            frames.read(&reset);
        }
        assert!(frames.resets_too_much());
        for _ in 0..=MANY_RESETS {
            frames.read(&head);
        }
        assert!(!frames.resets_too_much());
    }
}

//! Where the frames of a WebSocket begin and end, so that a frame of the gateway's own can stand between two of
//! them (RFC 6455, section 5.2). What is in them is nobody's business here.

use std::io::Cursor;

use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, OpCode},
};

/// The longest header: two bytes, a length of eight, a mask of four.
const MOST_HEADER: usize = 14;

/// Most bytes of a control frame's payload (RFC 6455, section 5.5).
const MOST_CONTROL: usize = 125;

/// One direction of a WebSocket, followed from its first byte.
#[derive(Debug, Default)]
pub struct Frames {
    /// A header of which not all is here.
    header: [u8; MOST_HEADER],
    filled: usize,
    /// Bytes that are still to come of the frame's payload.
    remaining: u64,
    in_close: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// A close frame has passed: nothing may follow it.
    Closed,
    /// This is no WebSocket.
    Broken,
}

impl Frames {
    /// Follows bytes that are to be passed on, and says how many of them: all, or, where it is to `stop`, those
    /// up to the next end of a frame.
    pub fn pass(&mut self, bytes: &[u8], stop: bool) -> usize {
        let mut place = 0;
        while place < bytes.len() {
            if stop && self.is_between() {
                return place;
            }
            let rest = &bytes[place..];
            place += match self.state {
                State::Broken => rest.len(),
                _ if self.remaining > 0 => self.payload(rest.len()),
                _ => self.head(rest),
            };
        }
        bytes.len()
    }

    /// Whether the next byte begins a frame; also where nobody can say, so that nothing is waited for.
    pub fn is_between(&self) -> bool {
        (self.remaining == 0 && self.filled == 0) || self.state == State::Broken
    }

    /// Whether a close frame may stand here.
    pub fn can_close(&self) -> bool {
        self.is_between() && self.state == State::Open
    }

    fn payload(&mut self, available: usize) -> usize {
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        let taken = most.min(available);
        self.remaining -= taken as u64;
        self.ends();
        taken
    }

    /// Takes bytes of a header: gives how many.
    fn head(&mut self, bytes: &[u8]) -> usize {
        let before = self.filled;
        let taken = bytes.len().min(MOST_HEADER - before);
        self.header[before..before + taken].copy_from_slice(&bytes[..taken]);
        let mut cursor = Cursor::new(&self.header[..before + taken]);
        match FrameHeader::parse(&mut cursor) {
            Ok(None) => {
                self.filled += taken;
                taken
            }
            Ok(Some((header, length))) if length <= i64::MAX as u64 => {
                let end = usize::try_from(cursor.position()).unwrap_or(MOST_HEADER);
                self.filled = 0;
                self.remaining = length;
                self.in_close = header.opcode == OpCode::Control(Control::Close);
                self.ends();
                end - before
            }
            Ok(Some(_)) | Err(_) => {
                self.state = State::Broken;
                taken
            }
        }
    }

    fn ends(&mut self) {
        if self.remaining == 0 && self.in_close {
            self.state = State::Closed;
        }
    }
}

/// A close frame. Frames towards a server are masked, with bytes that nobody could foresee (RFC 6455, section
/// 5.3).
pub fn close(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend(reason.bytes().take(MOST_CONTROL - payload.len()));
    for (place, byte) in payload.iter_mut().enumerate() {
        *byte ^= mask.map_or(0, |mask| mask[place % 4]);
    }
    let header = FrameHeader {
        mask,
        ..FrameHeader::default()
    };
    let mut frame = Vec::with_capacity(MOST_HEADER + payload.len());
    // Writing to a Vec cannot fail.
    let _ = header.format(payload.len() as u64, &mut frame);
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// A frame: opcode, whether it is the last of its message, mask, payload.
    type Parts = (u8, bool, Option<[u8; 4]>, usize);

    fn frame((opcode, last, mask, length): Parts) -> Vec<u8> {
        let mut bytes = vec![opcode | if last { 0x80 } else { 0 }];
        let masked = if mask.is_some() { 0x80 } else { 0 };
        match length {
            0..126 => bytes.push(masked | u8::try_from(length).unwrap()),
            126..65536 => {
                bytes.push(masked | 126);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(masked | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(mask.into_iter().flatten());
        bytes.extend((0..length).map(|place| u8::try_from(place % 251).unwrap()));
        bytes
    }

    fn frames() -> impl Strategy<Value = Vec<Parts>> {
        let opcode = prop_oneof![Just(0_u8), Just(1), Just(2), Just(9), Just(10)];
        let length = prop_oneof![
            0..4_usize,
            120..130_usize,
            65_530..65_540_usize,
            0..3000_usize
        ];
        vec(
            (opcode, any::<bool>(), any::<Option<[u8; 4]>>(), length),
            0..8,
        )
    }

    proptest! {
        #[test]
        fn a_stop_is_at_the_end_of_a_frame_however_the_bytes_come(
            parts in frames(),
            cuts in vec(1..5000_usize, 1..12),
            stop_at in 0..20_usize,
        ) {
            let frames: Vec<Vec<u8>> = parts.into_iter().map(frame).collect();
            let bytes = frames.concat();
            let mut ends: Vec<usize> = vec![0];
            for frame in &frames {
                ends.push(ends.last().unwrap() + frame.len());
            }
            let mut follower = Frames::default();
            let (mut place, mut passed, mut stopped) = (0, 0, false);
            for (number, cut) in cuts.iter().cycle().enumerate() {
                if place == bytes.len() {
                    break;
                }
                let piece = &bytes[place..bytes.len().min(place + cut)];
                let stop = number >= stop_at;
                let before = passed;
                passed += follower.pass(piece, stop);
                place += piece.len();
                prop_assert_eq!(follower.is_between(), ends.contains(&passed));
                if stop && (passed < place || follower.is_between()) {
                    // The first end of a frame since it was told to stop.
                    let first = ends.iter().find(|end| **end >= before).unwrap();
                    prop_assert_eq!(passed, *first);
                    stopped = true;
                    break;
                }
                prop_assert_eq!(passed, place);
            }
            prop_assert!(follower.is_between() && follower.can_close());
            prop_assert!(stopped || passed == bytes.len());
        }

        #[test]
        fn no_bytes_can_break_it(bytes in vec(any::<u8>(), 0..200), stop in any::<bool>()) {
            let mut follower = Frames::default();
            let passed = follower.pass(&bytes, stop);
            prop_assert!(passed <= bytes.len());
            prop_assert!(passed == bytes.len() || follower.is_between());
        }
    }

    #[test]
    fn nothing_follows_a_close_frame_nor_what_is_no_frame() {
        let mut closed = Frames::default();
        let close = frame((8, true, None, 2));
        closed.pass(&close[..3], false);
        assert!(!closed.is_between() && !closed.can_close());
        closed.pass(&close[3..], false);
        assert!(closed.is_between() && !closed.can_close());

        let mut broken = Frames::default();
        // A reserved opcode, and a length that no frame can have.
        assert_eq!(broken.pass(&[0x83, 0, 1, 2, 3], false), 5);
        assert!(broken.is_between() && !broken.can_close());
        assert_eq!(broken.pass(&[1], true), 0);
        let mut huge = Frames::default();
        huge.pass(&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255], false);
        assert!(huge.is_between() && !huge.can_close());
    }

    #[test]
    fn a_close_frame_is_spelt_as_in_the_rfc() {
        assert_eq!(close(1001, "bye", None), b"\x88\x05\x03\xe9bye");
        let masked = close(1001, "bye", Some([1, 2, 3, 4]));
        assert_eq!(masked, b"\x88\x85\x01\x02\x03\x04\x02\xeb\x61\x7d\x64");
        assert_eq!(close(1001, &"x".repeat(200), None).len(), 127);
        let mut follower = Frames::default();
        follower.pass(&masked, false);
        assert!(follower.is_between() && !follower.can_close());
    }
}

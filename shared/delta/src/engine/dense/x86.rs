//! Position of a byte in an x86-64 instruction. Follows lengths as far as compilers' code needs; an
//! error costs bits, never correctness.

use super::reference::{CALL, DATA};
use crate::engine::refs::Form;

/// Kind of the next byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// A prefix or an opcode.
    #[default]
    Begin,
    /// The opcode after 0F.
    Two,
    /// The opcode after 0F 38 or 0F 3A, or after VEX and EVEX.
    Three,
    /// Bytes of a VEX or EVEX prefix.
    Prefix,
    ModRm,
    Sib,
    Displacement,
    Immediate,
}

/// Follows instructions byte by byte.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Instructions {
    state: State,
    /// Number of bytes left of the displacement, immediate or prefix.
    left: u8,
    /// Number of bytes of the immediate that follows.
    immediate: u8,
    /// The opcode, plus 256 after 0F, or plus 512 after two bytes.
    opcode: u16,
    modrm: u8,
    wide: bool,
    short: bool,
    /// The last opcodes, the newest in the lowest byte.
    before: u32,
}

impl Instructions {
    /// Kind of the next byte, as a context.
    pub(super) fn context(&self) -> u32 {
        let place = (self.state as u32) << 3 | u32::from(self.left & 7);
        let opcode = match self.state {
            State::Begin => self.before & 0xFF,
            _ => u32::from(self.opcode),
        };
        let modrm = match self.state {
            State::Sib | State::Displacement | State::Immediate => u32::from(self.modrm),
            _ => u32::from(self.wide) | u32::from(self.short) << 1,
        };
        place << 20 | opcode << 8 | modrm
    }

    /// Kind of the next byte, 0 to 7.
    pub(super) fn state(&self) -> usize {
        self.state as usize
    }

    /// Returns the opcodes before.
    pub(super) fn before(&self) -> u32 {
        self.before
    }

    /// If the next four bytes are the distance to a function or to data, returns the class of the
    /// reference and its form.
    pub(super) fn destination(&self) -> Option<(u32, Form)> {
        if self.left != 4 {
            return None;
        }
        let tail = self.immediate;
        match self.state {
            State::Immediate if self.opcode == 0xE8 => Some((CALL, Form::Rel32 { tail: 0 })),
            State::Displacement if self.modrm & 0xC7 == 5 => Some((DATA, Form::Rel32 { tail })),
            _ => None,
        }
    }

    fn end(&mut self) {
        *self = Self {
            before: self.before << 8 | u32::from(self.opcode as u8),
            ..Self::default()
        };
    }

    /// Goes to the immediate, or to the next instruction.
    fn rest(&mut self) {
        if self.immediate == 0 {
            self.end();
        } else {
            (self.state, self.left) = (State::Immediate, self.immediate);
        }
    }

    fn displacement(&mut self, length: u8) {
        if length == 0 {
            self.rest();
        } else {
            (self.state, self.left) = (State::Displacement, length);
        }
    }

    fn operand(&self) -> u8 {
        if self.short { 2 } else { 4 }
    }

    /// Takes the next byte.
    pub(super) fn push(&mut self, byte: u8) {
        match self.state {
            State::Begin => self.first(byte),
            State::Two => self.second(byte),
            State::Three => {
                self.opcode = 512 + u16::from(byte);
                self.state = State::ModRm;
            }
            State::Prefix => {
                self.left -= 1;
                if self.left == 0 {
                    self.state = State::Three;
                }
            }
            State::ModRm => {
                self.modrm = byte;
                let (mode, rest, register) = (byte >> 6, byte & 7, byte >> 3 & 7);
                if matches!(self.opcode, 0xF6 | 0xF7) && register < 2 {
                    self.immediate = if self.opcode == 0xF6 {
                        1
                    } else {
                        self.operand()
                    };
                }
                match (mode, rest) {
                    (3, _) => self.rest(),
                    (_, 4) => self.state = State::Sib,
                    (0, 5) => self.displacement(4),
                    (0, _) => self.rest(),
                    (1, _) => self.displacement(1),
                    _ => self.displacement(4),
                }
            }
            State::Sib => match self.modrm >> 6 {
                0 if byte & 7 == 5 => self.displacement(4),
                0 => self.rest(),
                1 => self.displacement(1),
                _ => self.displacement(4),
            },
            State::Displacement => {
                self.left -= 1;
                if self.left == 0 {
                    self.rest();
                }
            }
            State::Immediate => {
                self.left -= 1;
                if self.left == 0 {
                    self.end();
                }
            }
        }
    }

    fn first(&mut self, byte: u8) {
        match byte {
            0x66 => self.short = true,
            0xF0 | 0xF2 | 0xF3 | 0x2E | 0x36 | 0x3E | 0x26 | 0x64 | 0x65 => {}
            0x40..=0x4F => self.wide = byte & 8 != 0,
            0x0F => self.state = State::Two,
            0xC5 => (self.state, self.left) = (State::Prefix, 1),
            0xC4 => (self.state, self.left) = (State::Prefix, 2),
            0x62 => (self.state, self.left) = (State::Prefix, 3),
            _ => {
                self.opcode = u16::from(byte);
                let (modrm, immediate) = match byte {
                    0x00..=0x3F => match byte & 7 {
                        4 => (false, 1),
                        5 => (false, self.operand()),
                        6 | 7 => (false, 0),
                        _ => (true, 0),
                    },
                    0x69 | 0x81 | 0xC7 => (true, self.operand()),
                    0x6B | 0x80 | 0x83 | 0xC0 | 0xC1 | 0xC6 => (true, 1),
                    0x63 | 0x84..=0x8F | 0xD0..=0xD3 | 0xD8..=0xDF | 0xF6 | 0xF7 | 0xFE | 0xFF => {
                        (true, 0)
                    }
                    0x68 | 0xA9 => (false, self.operand()),
                    0xE8 | 0xE9 => (false, 4),
                    0xB8..=0xBF => (false, if self.wide { 8 } else { self.operand() }),
                    0x6A | 0x70..=0x7F | 0xA8 | 0xB0..=0xB7 | 0xCD | 0xE0..=0xE7 | 0xEB => {
                        (false, 1)
                    }
                    0xC2 => (false, 2),
                    0xC8 => (false, 3),
                    _ => (false, 0),
                };
                self.immediate = immediate;
                if modrm {
                    self.state = State::ModRm;
                } else {
                    self.rest();
                }
            }
        }
    }

    fn second(&mut self, byte: u8) {
        self.opcode = 256 + u16::from(byte);
        match byte {
            0x38 => self.state = State::Three,
            0x3A => {
                self.immediate = 1;
                self.state = State::Three;
            }
            0x80..=0x8F => {
                self.immediate = 4;
                self.rest();
            }
            0x05 | 0x0B | 0x31 | 0x34 | 0x77 | 0xA0..=0xA2 | 0xA8..=0xAA | 0xC8..=0xCF => {
                self.end();
            }
            _ => {
                if matches!(byte, 0x70..=0x73 | 0xA4 | 0xAC | 0xBA | 0xC2 | 0xC4..=0xC6) {
                    self.immediate = 1;
                }
                self.state = State::ModRm;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_of_compilers_have_their_lengths() {
        let code: &[&[u8]] = &[
            &[0x55],                                     // push rbp
            &[0x48, 0x89, 0xE5],                         // mov rbp, rsp
            &[0x48, 0x81, 0xEC, 0x00, 0x01, 0x00, 0x00], // sub rsp, 256
            &[0x8B, 0x44, 0x24, 0x10],                   // mov eax, [rsp+16]
            &[0x48, 0x8D, 0x05, 1, 2, 3, 4],             // lea rax, [rip+..]
            &[0xE8, 1, 2, 3, 4],                         // call
            &[0x0F, 0x84, 1, 2, 3, 4],                   // je
            &[0x66, 0xC7, 0x45, 0xF0, 1, 2],             // mov word [rbp-16], ..
            &[0xF6, 0xC1, 0x01],                         // test cl, 1
            &[0xF7, 0xD8],                               // neg eax
            &[0x49, 0xBA, 1, 2, 3, 4, 5, 6, 7, 8],       // mov r10, imm64
            &[0xC5, 0xFA, 0x10, 0x05, 1, 2, 3, 4],       // vmovss xmm0, [rip+..]
            &[0x66, 0x0F, 0x3A, 0x0F, 0xC1, 0x08],       // palignr
            &[0xC3],                                     // ret
        ];
        let mut place = Instructions::default();
        for instruction in code {
            for (index, &byte) in instruction.iter().enumerate() {
                place.push(byte);
                let last = index + 1 == instruction.len();
                let prefix = place.state() == 0 && !last;
                assert!(
                    last == (place.state() == 0) || prefix && index < 2,
                    "{instruction:02X?} at {index}"
                );
            }
        }
    }

    #[test]
    fn any_bytes_are_followed() {
        let mut place = Instructions::default();
        for index in 0..200_000u32 {
            place.push((index.wrapping_mul(0x9E37_79B1) >> 23) as u8);
        }
    }
}

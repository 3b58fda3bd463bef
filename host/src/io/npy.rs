//! The header of a `.npy` file.
use super::{StoredType, shown};

const MAGIC: &[u8] = b"\x93NUMPY";
/// As many as NumPy's arrays have.
const MAX_DIMS: usize = 64;

/// What a header says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub(super) stored: StoredType,
    pub(super) fortran_order: bool,
    pub(super) shape: Vec<usize>,
    /// Bytes before the first value.
    pub(super) len_bytes: usize,
}

/// Parses the start of `file`. The error is the reason alone.
pub(super) fn parse(file: &[u8]) -> Result<Header, String> {
    let Some(rest) = file.strip_prefix(MAGIC) else {
        return Err("is not a .npy file: it does not begin with \\x93NUMPY".into());
    };
    let truncated = || "is truncated: the .npy header is not whole".to_string();
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(truncated)?;
    let (len, text) = match version[0] {
        1 => {
            let (len, text) = rest.split_first_chunk::<2>().ok_or_else(truncated)?;
            (usize::from(u16::from_le_bytes(*len)), text)
        }
        2 | 3 => {
            let (len, text) = rest.split_first_chunk::<4>().ok_or_else(truncated)?;
            (usize::try_from(u32::from_le_bytes(*len)).map_err(|_| truncated())?, text)
        }
        other => return Err(format!("has .npy version {other}; versions 1 to 3 are known")),
    };
    let before = file.len() - text.len();
    let text = text.get(..len).ok_or_else(truncated)?;
    let text = std::str::from_utf8(text).map_err(|_| "has a .npy header that is not text".to_string())?;
    let (descr, fortran_order, shape) = Dict { rest: text }.parse()?;
    Ok(Header { stored: stored_type(&descr)?, fortran_order, shape, len_bytes: before + len })
}

/// A version 1 header whose length is a multiple of 64, as NumPy writes it. Version 1 has room for any
/// shape that the writers take.
pub(super) fn header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let mut dims: String = shape.iter().map(|n| format!("{n}, ")).collect();
    if shape.len() > 1 {
        dims.truncate(dims.len() - 2);
    } else {
        dims = dims.trim_end().to_string();
    }
    let mut dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    let before = MAGIC.len() + 2 + 2;
    let len_bytes = (before + dict.len() + 1).next_multiple_of(64);
    dict.extend(std::iter::repeat_n(' ', len_bytes - before - dict.len() - 1));
    dict.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend((dict.len() as u16).to_le_bytes());
    bytes.extend(dict.as_bytes());
    bytes
}

fn stored_type(descr: &str) -> Result<StoredType, String> {
    let (order, kind) = match descr.as_bytes().first() {
        Some(b'<' | b'>' | b'|' | b'=') => descr.split_at(1),
        _ => ("", descr),
    };
    let stored = match kind {
        "u1" | "B" => return Ok(StoredType::U8),
        "f2" => StoredType::F16,
        "f4" => StoredType::F32,
        "f8" => StoredType::F64,
        _ => {
            return Err(format!(
                "holds values of type '{}'; points are u1, f2, f4 or f8: convert them in NumPy with \
                 .astype('<f4')",
                shown(descr)
            ));
        }
    };
    if order == ">" {
        return Err(format!(
            "holds big-endian values ('{descr}'); convert them in NumPy with .astype('<{kind}')"
        ));
    }
    Ok(stored)
}

/// The one Python literal that a header is: a dict of a string, a bool and a tuple of integers.
struct Dict<'a> {
    rest: &'a str,
}

impl<'a> Dict<'a> {
    fn parse(mut self) -> Result<(String, bool, Vec<usize>), String> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.expect('{')?;
        while !self.eat('}') {
            let key = self.string()?;
            self.expect(':')?;
            match key {
                "descr" => {
                    if self.peek() == Some('[') {
                        return Err("holds records; points are a plain array of numbers".into());
                    }
                    descr = Some(self.string()?.to_string());
                }
                "fortran_order" => fortran = Some(self.boolean()?),
                "shape" => shape = Some(self.tuple()?),
                _ => return Err(malformed()),
            }
            if !self.eat(',') {
                self.expect('}')?;
                break;
            }
        }
        if !self.rest.trim_matches([' ', '\n', '\t', '\r', '\0']).is_empty() {
            return Err(malformed());
        }
        match (descr, fortran, shape) {
            (Some(descr), Some(fortran), Some(shape)) => Ok((descr, fortran, shape)),
            _ => Err("has a .npy header without 'descr', 'fortran_order' or 'shape'".into()),
        }
    }

    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn eat(&mut self, c: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, c: char) -> Result<(), String> {
        if self.eat(c) { Ok(()) } else { Err(malformed()) }
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let quote = self.peek().filter(|c| matches!(c, '\'' | '"')).ok_or_else(malformed)?;
        let (text, rest) = self.rest[1..].split_once(quote).ok_or_else(malformed)?;
        self.rest = rest;
        Ok(text)
    }

    fn boolean(&mut self) -> Result<bool, String> {
        self.rest = self.rest.trim_start();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err(malformed())
    }

    fn tuple(&mut self) -> Result<Vec<usize>, String> {
        let mut shape = Vec::new();
        self.expect('(')?;
        while !self.eat(')') {
            self.rest = self.rest.trim_start();
            let digits = self.rest.len() - self.rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, rest) = self.rest.split_at(digits);
            // Python 2 wrote long integers with an L.
            self.rest = rest.strip_prefix('L').unwrap_or(rest);
            if number.is_empty() {
                return Err(malformed());
            }
            if shape.len() == MAX_DIMS {
                return Err(format!(
                    "has more than {MAX_DIMS} dimensions; points are (n, d), or (batch, n, d)"
                ));
            }
            shape.push(
                number
                    .parse()
                    .map_err(|_| format!("has a dimension of {}, too large to be true", shown(number)))?,
            );
            if !self.eat(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(shape)
    }
}

fn malformed() -> String {
    "has a malformed .npy header".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u8, dict: &str) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((dict.len() as u16).to_le_bytes()),
            _ => bytes.extend((dict.len() as u32).to_le_bytes()),
        }
        bytes.extend(dict.as_bytes());
        bytes
    }

    #[test]
    fn reads_what_it_writes() {
        for shape in [&[7][..], &[3, 4], &[2, 3, 4]] {
            let bytes = header("<f4", shape);
            assert_eq!(bytes.len() % 64, 0);
            let header = parse(&bytes).unwrap();
            assert_eq!((header.stored, header.shape.as_slice()), (StoredType::F32, shape));
            assert_eq!((header.fortran_order, header.len_bytes), (false, bytes.len()));
        }
    }

    #[test]
    fn reads_every_version_and_spelling() {
        for version in 1..=3 {
            let dict = "{\"shape\":(2L,3L),'fortran_order':True,'descr':'|u1'}  \n";
            let header = parse(&file(version, dict)).unwrap();
            assert_eq!((header.stored, header.fortran_order), (StoredType::U8, true));
            assert_eq!(header.shape, [2, 3]);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let cases = [
            (b"PK\x03\x04 a zip".to_vec(), "does not begin"),
            (file(9, "{}"), "version 9"),
            (file(1, "{}"), "without"),
            (file(1, "{'descr': '>f4', 'fortran_order': False, 'shape': (1, 1), }"), "big-endian"),
            (file(1, "{'descr': '<i8', 'fortran_order': False, 'shape': (1, 1), }"), "'<i8'"),
            (file(1, "{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1, 1), }"), "records"),
            (file(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1, -1), }"), "malformed"),
            (
                file(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 1), }"),
                "too large",
            ),
            (file(2, "{'descr'")[..12].to_vec(), "truncated"),
        ];
        for (bytes, reason) in cases {
            let error = parse(&bytes).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}

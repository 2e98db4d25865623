//! Values as bytes: `postcard`, which is compact and exact, since both ends are the same program.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::BoxError;
use crate::template::codec::sealed::Sealed;
use crate::template::codec::{Decode, Reply};

pub(super) fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_stdvec(value)
}

/// Reads a value that the bytes hold whole and alone.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(Unreadable(None)),
        Err(error) => Err(Unreadable(Some(error))),
    }
}

/// A value was written otherwise than it is read.
#[derive(Debug)]
pub(super) struct Unreadable(Option<postcard::Error>);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(error) => write!(f, "{error}")?,
            None => f.write_str("bytes are left over")?,
        }
        f.write_str(
            "; it is sent without its field names, so serde's skip_serializing_if, flatten, untagged and tag cannot be used",
        )
    }
}

impl std::error::Error for Unreadable {}

/// An item as it was in the child.
pub(super) struct Item<T>(PhantomData<fn() -> T>);

impl<T> Default for Item<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> Sealed for Item<T> {}

impl<T: DeserializeOwned> Decode for Item<T> {
    type Output = T;
    fn decode(&mut self, reply: Reply<'_>) -> Result<T, BoxError> {
        read(reply.bytes()).map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read_even_where_other_formats_cheat() {
        type Tricky = (Option<Option<()>>, f64, Vec<u8>, String, char, u128, Result<(), i8>);
        let tricky: [Tricky; 2] = [
            (Some(None), -0.0, vec![0, 255], "\0\n".to_owned(), '\u{10ffff}', u128::MAX, Err(-1)),
            (Some(Some(())), f64::INFINITY, vec![], String::new(), 'a', 0, Ok(())),
        ];
        for value in tricky {
            assert_eq!(read::<Tricky>(&write(&value).unwrap()).unwrap(), value);
        }
        let nan = read::<f64>(&write(&f64::NAN).unwrap()).unwrap();
        assert!(nan.is_nan());
    }

    #[test]
    fn bytes_that_are_left_over_are_no_value() {
        assert!(read::<u8>(&[1, 2]).unwrap_err().to_string().contains("left over"));
        assert!(read::<u32>(&[]).is_err());
    }
}

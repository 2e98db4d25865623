//! What the framing targets share: a stream cut in arbitrary reads gives what it gives in one.

use subfeed::framing::{FramingError, Position, ReplyFraming, Scan};

/// Packets begin here, so that marks with small ids are as good as any.
const FIRST: u64 = 0;

/// Cuts the bytes behind a short preamble (seed of the reads, limit) both ways and compares.
///
/// # Panics
///
/// When the two differ, a reply passes the limit, or a scanner breaks its contract.
pub fn reads_do_not_matter(framing: &ReplyFraming, data: &[u8]) {
    let Some((&[seed, size, limit], stream)) = data.split_first_chunk() else {
        return;
    };
    // A small limit is met often, none at all shows what arithmetic does.
    let limit = match limit {
        255 => usize::MAX,
        limit => usize::from(limit),
    };
    let mut state = u32::from(seed) << 1 | 1;
    let reads = std::iter::repeat_with(|| {
        state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        1 + (state >> 16) as usize % (1 + usize::from(size))
    });
    let whole = cut(framing, stream, std::iter::empty(), limit);
    let split = cut(framing, stream, reads, limit);
    assert_eq!(whole.0, split.0);
    assert_eq!(
        whole.1.map_err(|error| error.to_string()),
        split.1.map_err(|error| error.to_string())
    );
}

type Replies<'a> = (Vec<&'a [u8]>, Result<(), FramingError>);

fn cut<'a>(
    framing: &ReplyFraming,
    stream: &'a [u8],
    reads: impl Iterator<Item = usize>,
    limit: usize,
) -> Replies<'a> {
    let mut scanner = framing.start();
    let mut replies = Vec::new();
    let mut taken = 0;
    let mut arrived = 0;
    let mut reads = reads.fuse();
    loop {
        let (to, eof) = match reads.next() {
            Some(read) if arrived < stream.len() => (stream.len().min(arrived + read), false),
            _ => (stream.len(), true),
        };
        arrived = to;
        while taken < arrived {
            let position = Position::new(FIRST + replies.len() as u64, limit, eof);
            match scanner.scan(&stream[taken..arrived], position) {
                Ok(Scan::Partial) => {
                    assert!(!eof, "nothing more will come");
                    break;
                }
                Ok(Scan::Complete { body, len }) => {
                    assert!(body.start <= body.end && body.end <= len && len <= arrived - taken);
                    assert!(len > 0 && body.len() <= limit);
                    replies.push(&stream[taken..][body]);
                    taken += len;
                }
                Err(error) => return (replies, Err(error)),
            }
        }
        if eof {
            return (replies, Ok(()));
        }
    }
}

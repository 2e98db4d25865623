//! The nodes of a Slurm allocation, as Slurm writes them in the environment of a process inside.

/// `n[1-3,07],m4` is `n1 n2 n3 n07 m4`; brackets may stand several times in one name. `None` if it is not written
/// like that.
pub(super) fn expand(list: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for part in split(list)? {
        let mut heads = vec![String::new()];
        let mut rest = part;
        while let Some((before, inside)) = rest.split_once('[') {
            let (ranges, after) = inside.split_once(']')?;
            let mut tails = Vec::new();
            for range in ranges.split(',') {
                numbers(range, &mut tails)?;
            }
            let grown = heads
                .iter()
                .flat_map(|head| tails.iter().map(move |tail| format!("{head}{before}{tail}")));
            heads = grown.collect();
            rest = after;
        }
        names.extend(heads.into_iter().map(|head| head + rest));
    }
    names.iter().all(|name| !name.is_empty()).then_some(names)
}

/// At the commas that are not in brackets.
fn split(list: &str) -> Option<Vec<&str>> {
    let (mut parts, mut inside, mut start) = (Vec::new(), false, 0);
    for (at, byte) in list.bytes().enumerate() {
        match byte {
            b'[' if inside => return None,
            b']' if !inside => return None,
            b'[' | b']' => inside = !inside,
            b',' if !inside => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    (!inside).then_some(parts)
}

/// More nodes than any cluster has.
const MOST: u64 = 1 << 20;

/// `7` or `07-12`: as wide as the first is written.
fn numbers(range: &str, all: &mut Vec<String>) -> Option<()> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let width = first.len();
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    if last < first || last - first > MOST {
        return None;
    }
    all.extend((first..=last).map(|n| format!("{n:0width$}")));
    Some(())
}

/// `4(x2),8` is `4 4 8`: how many processors each node has.
pub(super) fn processors(list: &str) -> Option<Vec<u32>> {
    let mut all = Vec::new();
    for part in list.split(',') {
        let (count, times) = match part.split_once("(x") {
            Some((count, times)) => (count, times.strip_suffix(')')?.parse().ok()?),
            None => (part, 1),
        };
        let count: u32 = count.parse().ok()?;
        if times > MOST as usize {
            return None;
        }
        all.extend(std::iter::repeat_n(count, times));
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_nodes_is_expanded_as_scontrol_does() {
        for (list, names) in [
            ("n1", "n1"),
            ("n[1-4]", "n1 n2 n3 n4"),
            ("n[1-3,07],m4", "n1 n2 n3 n07 m4"),
            ("a[08-10]x", "a08x a09x a10x"),
            ("r[1-2]n[1-2]", "r1n1 r1n2 r2n1 r2n2"),
            ("login-a,login-b", "login-a login-b"),
        ] {
            assert_eq!(expand(list).unwrap().join(" "), names, "{list}");
        }
        for bad in
            ["", "n[", "n]", "n[1", "n[2-1]", "n[a-b]", "n[[1]]", "n1,,n2", "n[1-99999999999]"]
        {
            assert_eq!(expand(bad), None, "{bad}");
        }
    }

    #[test]
    fn processors_are_counted_per_node() {
        assert_eq!(processors("4"), Some(vec![4]));
        assert_eq!(processors("4(x2),8"), Some(vec![4, 4, 8]));
        for bad in ["", "x", "4(x", "4(y2)", "4(x99999999999)"] {
            assert_eq!(processors(bad), None, "{bad}");
        }
    }
}

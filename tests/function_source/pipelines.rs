//! `run_pipeline_in_subprocess`: a whole pipeline in the child, made for each pass or living through all.

use std::collections::BTreeSet;

use subfeed::source::FunctionSource;
use subfeed::{Error, ErrorKind};

use crate::common::{Belongings, eventually};
use crate::functions::{EPOCHS, NESTED, PIPELINE, WAITING};
use crate::tests;

tests![
    a_pipeline_of_threads_and_processes_runs_in_the_child,
    a_pipeline_is_made_anew_for_each_pass_in_the_same_process,
    a_pipeline_that_waits_is_cancelled_when_its_pass_is_left,
    a_pipeline_is_torn_down_with_its_source,
    a_child_may_have_a_source_of_its_own,
    batches_of_three_in_each_of_three_epochs,
    single_and_empty_and_one_item_epochs,
    an_epoch_that_is_left_is_skipped_and_the_pipeline_lives_on,
    stopped_between_two_epochs_it_ends_at_once,
];

fn pipeline_in_the_child(n: u64) -> FunctionSource<(String, u32)> {
    PIPELINE.iterate_in_subprocess(&n, 4)
}

fn squares(n: u64) -> Vec<String> {
    (0..n).map(|k| format!("#{}", k * k)).collect()
}

/// What a pass gave, and the one process that it was made in.
fn texts(pass: impl Iterator<Item = Result<(String, u32), Error>>) -> (Vec<String>, u32) {
    let (texts, pids): (Vec<_>, BTreeSet<_>) = pass.map(Result::unwrap).unzip();
    assert_eq!(pids.len(), 1);
    (texts, pids.into_iter().next().unwrap())
}

fn a_pipeline_of_threads_and_processes_runs_in_the_child() {
    let (made, pid) = texts(pipeline_in_the_child(100).iter());
    assert_eq!(made, squares(100));
    assert_ne!(pid, std::process::id());
}

fn a_pipeline_is_made_anew_for_each_pass_in_the_same_process() {
    let mut source = pipeline_in_the_child(20);
    let (_, pid) = texts(source.iter().take(3));
    for _ in 0..2 {
        assert_eq!(texts(source.iter()), (squares(20), pid));
    }
}

fn a_pipeline_that_waits_is_cancelled_when_its_pass_is_left() {
    let mut source = WAITING.iterate_in_subprocess(&300, 2);
    let mut pass = source.iter();
    assert_eq!(pass.next().unwrap().unwrap(), "0");
    // It waits for the second now, and would do so for five minutes.
    drop(pass);
    let replies: Result<Vec<_>, _> = source.iter().collect();
    assert_eq!(replies.unwrap().len(), 300);
}

fn a_pipeline_is_torn_down_with_its_source() {
    let before = Belongings::now();
    // The number marks the worker, which waits for it in seconds.
    let seconds = 1_000_000_000 + u64::from(std::process::id());
    let command = format!("sleep\0{seconds}\0");
    let is_worker = |line: &[u8]| line == command.as_bytes();
    let workers = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = processes.flat_map(|entry| std::fs::read(entry.path().join("cmdline")));
        lines.filter(|line| is_worker(line)).count()
    };
    let mut source = WAITING.iterate_in_subprocess(&seconds, 2);
    let mut pass = source.iter();
    assert_eq!(pass.next().unwrap().unwrap(), "0");
    eventually("it waits", || workers() == 1);
    drop(pass);
    drop(source);
    before.restored();
    assert_eq!(workers(), 0);
}

fn a_child_may_have_a_source_of_its_own() {
    let mut source = NESTED.iterate_in_subprocess(&4, 2);
    for _ in 0..2 {
        let doubled: Result<Vec<_>, _> = source.iter().collect();
        assert_eq!(doubled.unwrap(), [0, 2, 4, 6]);
    }
}

/// The lengths of the batches of a pass, whose numbers must count up from 0; and the process.
#[track_caller]
fn batches(source: &mut FunctionSource<(u32, Vec<u64>)>) -> (Vec<usize>, BTreeSet<u32>) {
    let made: Vec<_> = source.iter().map(|batch| batch.expect("a batch")).collect();
    let numbers: Vec<u64> = made.iter().flat_map(|(_, batch)| batch.clone()).collect();
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    (
        made.iter().map(|(_, batch)| batch.len()).collect(),
        made.iter().map(|(pid, _)| *pid).collect(),
    )
}

#[track_caller]
fn is_over(source: &mut FunctionSource<(u32, Vec<u64>)>) {
    for _ in 0..2 {
        let items: Vec<_> = source.iter().collect();
        let [Err(error)] = &items[..] else { panic!("{items:?}") };
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
}

fn batches_of_three_in_each_of_three_epochs() {
    let mut source = EPOCHS.iterate_in_subprocess(&vec![10, 10, 10], 2);
    let mut pids = BTreeSet::new();
    for _ in 0..3 {
        let (lengths, pid) = batches(&mut source);
        assert_eq!(lengths, [3, 3, 3, 1]);
        pids.extend(pid);
    }
    assert_eq!(pids.len(), 1);
    is_over(&mut source);
}

fn single_and_empty_and_one_item_epochs() {
    let mut source = EPOCHS.iterate_in_subprocess(&vec![4], 2);
    assert_eq!(batches(&mut source).0, [3, 1]);
    is_over(&mut source);
    let mut source = EPOCHS.iterate_in_subprocess(&vec![1, 0, 0, 6], 2);
    for expected in [&[1][..], &[], &[], &[3, 3]] {
        assert_eq!(batches(&mut source).0, expected);
    }
    is_over(&mut source);
    is_over(&mut EPOCHS.iterate_in_subprocess(&vec![], 2));
}

fn an_epoch_that_is_left_is_skipped_and_the_pipeline_lives_on() {
    for buffer_size in [1, 2, 100] {
        let mut source = EPOCHS.iterate_in_subprocess(&vec![10, 10, 7], buffer_size);
        let (pid, batch) = source.iter().next().unwrap().unwrap();
        assert_eq!(batch, [0, 1, 2]);
        // With a large buffer the child may have come to the end of the epoch it was left in.
        assert_eq!(batches(&mut source), (vec![3, 3, 3, 1], BTreeSet::from([pid])));
        assert_eq!(batches(&mut source), (vec![3, 3, 1], BTreeSet::from([pid])));
        is_over(&mut source);
    }
}

fn stopped_between_two_epochs_it_ends_at_once() {
    let before = Belongings::now();
    let mut source = EPOCHS.iterate_in_subprocess(&vec![10, 10], 2);
    assert_eq!(batches(&mut source).0, [3, 3, 3, 1]);
    crate::common::soon(|| drop(source));
    before.restored();
}

use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;

use super::*;

#[tokio::test]
async fn runs_and_returns() {
    let workers = WorkerThreads::start_threads(2, ThreadPriority::Normal).unwrap();
    let lane = WorkerLane::new(2);
    assert_eq!(workers.run_job(&lane, || Ok(41 + 1)).await.unwrap(), 42);
    let failed = workers.run_job::<()>(&lane, || Err(Error::new(ErrorKind::Busy, "no"))).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Busy);
}

#[tokio::test]
async fn a_panic_is_an_error_and_the_thread_lives() {
    let workers = WorkerThreads::start_threads(1, ThreadPriority::Normal).unwrap();
    let lane = WorkerLane::new(1);
    let failed = workers.run_job::<()>(&lane, || panic!("a bug")).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Internal);
    workers.submit_job(&lane, Box::new(|| panic!("another"))).unwrap();
    assert_eq!(workers.run_job(&lane, || Ok(1)).await.unwrap(), 1);
}

#[tokio::test]
async fn shutdown_runs_what_is_queued_and_refuses_the_rest() {
    let workers = WorkerThreads::start_threads(2, ThreadPriority::Normal).unwrap();
    let lane = WorkerLane::new(1);
    let done = Arc::new(AtomicUsize::new(0));
    for _ in 0..500 {
        let done = Arc::clone(&done);
        workers
            .submit_job(
                &lane,
                Box::new(move || {
                    done.fetch_add(1, Ordering::Relaxed);
                }),
            )
            .unwrap();
    }
    workers.shut_down().await;
    assert_eq!(done.load(Ordering::Relaxed), 500);
    assert_eq!(workers.run_job(&lane, || Ok(())).await.unwrap_err().kind(), ErrorKind::Closed);
    workers.shut_down().await;
}

#[tokio::test]
async fn a_lane_never_runs_more_than_its_maximum_and_leaves_threads_to_others() {
    let workers = WorkerThreads::start_threads(4, ThreadPriority::Normal).unwrap();
    let heavy = WorkerLane::new(2);
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (release, gate) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    for _ in 0..100 {
        let (running, most, gate) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&gate));
        let job = move || {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let _ = lock_ignoring_poison(&gate).recv();
            running.fetch_sub(1, Ordering::SeqCst);
        };
        workers.submit_job(&heavy, Box::new(job)).unwrap();
    }
    while running.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    // All jobs of the heavy lane block, and still another lane is served.
    assert_eq!(workers.run_job(&WorkerLane::new(1), || Ok("served")).await.unwrap(), "served");
    drop(release);
    workers.shut_down().await;
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn lanes_take_turns_and_each_is_first_in_first_out() {
    let workers = WorkerThreads::start_threads(1, ThreadPriority::Normal).unwrap();
    let (begin, gate) = mpsc::channel::<()>();
    workers
        .submit_job(
            &WorkerLane::new(1),
            Box::new(move || {
                let _ = gate.recv();
            }),
        )
        .unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let (a, b) = (WorkerLane::new(1), WorkerLane::new(1));
    for (lane, name) in [(&a, "a"), (&b, "b")] {
        for number in 0..3 {
            let order = Arc::clone(&order);
            workers.submit_job(lane, Box::new(move || lock_ignoring_poison(&order).push((name, number)))).unwrap();
        }
    }
    begin.send(()).unwrap();
    workers.shut_down().await;
    assert_eq!(*lock_ignoring_poison(&order), [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]);
}

#[tokio::test]
async fn dropped_work_that_has_not_begun_never_begins() {
    let workers = WorkerThreads::start_threads(1, ThreadPriority::Normal).unwrap();
    let lane = WorkerLane::new(1);
    let (begin, gate) = mpsc::channel::<()>();
    workers
        .submit_job(
            &lane,
            Box::new(move || {
                let _ = gate.recv();
            }),
        )
        .unwrap();
    let ran = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ran);
    let future = workers.run_job(&lane, move || {
        seen.store(true, Ordering::SeqCst);
        Ok(())
    });
    tokio::select! {
        biased;
        _ = future => panic!("the only thread is blocked"),
        () = std::future::ready(()) => {}
    }
    begin.send(()).unwrap();
    workers.shut_down().await;
    assert!(!ran.load(Ordering::SeqCst));
}

#[tokio::test]
async fn slow_jobs_of_many_lanes_do_not_stop_the_others() {
    let workers = WorkerThreads::start_threads(2, ThreadPriority::Normal).unwrap();
    let (release, gate) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    for _ in 0..8 {
        let gate = Arc::clone(&gate);
        let job = move || {
            let _ = lock_ignoring_poison(&gate).recv();
        };
        workers.submit_job(&WorkerLane::new(1), Box::new(job)).unwrap();
    }
    for _ in 0..20 {
        assert_eq!(workers.run_job(&WorkerLane::new(1), || Ok("served")).await.unwrap(), "served");
    }
    drop(release);
    workers.shut_down().await;
}

#[tokio::test]
async fn threads_that_replaced_slow_ones_are_bounded_and_end() {
    let workers = WorkerThreads::start_threads(1, ThreadPriority::Normal).unwrap();
    let (release, gate) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let began = Arc::new(AtomicUsize::new(0));
    for _ in 0..EXTRA_MAX + 10 {
        let (gate, began) = (Arc::clone(&gate), Arc::clone(&began));
        let job = move || {
            began.fetch_add(1, Ordering::SeqCst);
            let _ = lock_ignoring_poison(&gate).recv();
        };
        workers.submit_job(&WorkerLane::new(1), Box::new(job)).unwrap();
    }
    while began.load(Ordering::SeqCst) < EXTRA_MAX + 1 {
        std::thread::yield_now();
    }
    assert_eq!(lock_ignoring_poison(&workers.shared.queue).alive, EXTRA_MAX + 1);
    drop(release);
    while lock_ignoring_poison(&workers.shared.queue).alive > 1 {
        std::thread::yield_now();
    }
    assert_eq!(workers.run_job(&WorkerLane::new(1), || Ok("served")).await.unwrap(), "served");
    workers.shut_down().await;
}

#[tokio::test]
async fn heavy_lanes_share_few_threads_and_quick_ones_have_the_others() {
    let workers = WorkerThreads::start_threads(2, ThreadPriority::Normal).unwrap();
    let heavy: Vec<WorkerLane> = (0..EXTRA_MAX + 20).map(|_| WorkerLane::new(2)).collect();
    // Each lane has shown that it is heavy.
    for lane in &heavy {
        let now = workers.shared.elapsed_nanos();
        let began = now.saturating_sub(nanos_of(2 * HEAVY)).max(1);
        lock_ignoring_poison(&lane.0.state).running.push(began);
        assert_eq!(lane.0.finish_job(began, began + nanos_of(2 * HEAVY)), LaneReadiness::No);
    }
    let (release, gate) = mpsc::channel::<()>();
    let (gate, running) = (Arc::new(Mutex::new(gate)), Arc::new(AtomicUsize::new(0)));
    for lane in heavy.iter().chain(&heavy) {
        let (gate, running) = (Arc::clone(&gate), Arc::clone(&running));
        let job = move || {
            running.fetch_add(1, Ordering::SeqCst);
            let _ = lock_ignoring_poison(&gate).recv();
        };
        workers.submit_job(lane, Box::new(job)).unwrap();
    }
    for _ in 0..20 {
        assert_eq!(workers.run_job(&WorkerLane::new(1), || Ok("served")).await.unwrap(), "served");
    }
    assert!(running.load(Ordering::SeqCst) <= 2, "two threads, two heavy jobs");
    drop(release);
    workers.shut_down().await;
    assert_eq!(running.load(Ordering::SeqCst), 2 * heavy.len());
}

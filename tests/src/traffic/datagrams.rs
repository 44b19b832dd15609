//! A stream of numbered datagrams, by which loss is counted exactly.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use nix::unistd::Pid;

use crate::namespace::Namespace;

/// The sender wakes up as often.
const TICK: Duration = Duration::from_millis(1);
/// The receiver looks as often whether all is over.
const LOOK: Duration = Duration::from_millis(20);
/// Datagrams on their way are waited for as long after the last one was sent.
const REST: Duration = Duration::from_millis(500);
/// The receiver may be off the CPU for a while: room for 10 seconds of 10 kpps.
const RECEIVE_BUFFER: usize = 128 << 20;
/// A sender that fell behind catches up by at most as many at once.
const BURST: u64 = 100;

/// A running stream from one namespace to another.
#[derive(Debug)]
pub struct Datagrams {
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
    sender: JoinHandle<io::Result<u64>>,
    receiver: JoinHandle<Seen>,
    overrun: u64,
}

/// What came of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatagramsReport {
    /// Sent.
    pub sent: u64,
    /// Different ones that arrived.
    pub received: u64,
    /// Sent and not arrived.
    pub lost: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Arrived after a later one.
    pub reordered: u64,
    /// The longest time between two arrivals.
    pub longest_gap: Duration,
    /// Frames that the machine threw away in that time because a CPU did not come to them: a loss
    /// up to this number may be the machine's and not the network's.
    pub overrun: u64,
}

impl Datagrams {
    /// Sends `per_second` datagrams a second from `source` in `from` to a socket at `target` in
    /// `to`, until it is stopped. All of it is sent from one CPU, so that nobody reorders it
    /// whom the kernel did not ask to.
    pub async fn start(
        from: (&Namespace, IpAddr),
        to: (&Namespace, SocketAddr),
        per_second: u32,
    ) -> Result<Self> {
        let ((from, source), (to, target)) = (from, to);
        let receiver = to.run(move || listen(target)).await?;
        let receiver = receiver.with_context(|| format!("cannot listen on {target}"))?;
        let sender = from.run(move || connect(source, target)).await?;
        let sender = sender.with_context(|| format!("cannot send from {source}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(u64::MAX));
        let arrived = Arc::new(AtomicU64::new(0));
        let (stopped, total) = (Arc::clone(&stop), Arc::clone(&sent));
        let counter = Arc::clone(&arrived);
        let overrun = overrun()?;
        Ok(Self {
            stop,
            arrived,
            overrun,
            sender: thread::Builder::new()
                .name("datagrams out".to_owned())
                .spawn(move || send(&sender, per_second, &stopped, &total))?,
            receiver: thread::Builder::new()
                .name("datagrams in".to_owned())
                .spawn(move || receive(&receiver, &sent, &counter))?,
        })
    }

    /// How many have arrived by now.
    pub fn received(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Stops sending, waits for what is on its way, and counts.
    pub async fn stop(self) -> Result<DatagramsReport> {
        self.stop.store(true, Ordering::Relaxed);
        let join = move || (self.sender.join(), self.receiver.join());
        let (sent, seen) = tokio::task::spawn_blocking(join).await?;
        let sent = sent.ok().context("the sender of datagrams died")?;
        let seen = seen.ok().context("the receiver of datagrams died")?;
        let sent = sent.context("cannot send datagrams")?;
        Ok(DatagramsReport {
            sent,
            received: seen.received,
            lost: sent.saturating_sub(seen.received),
            duplicated: seen.duplicated,
            reordered: seen.reordered,
            longest_gap: seen.longest_gap,
            overrun: overrun()?.saturating_sub(self.overrun),
        })
    }
}

/// Frames that fell out of the CPUs' queues since boot: the second column, hexadecimal, a line for
/// each CPU.
fn overrun() -> Result<u64> {
    let table = fs::read_to_string("/proc/net/softnet_stat").context("cannot read softnet_stat")?;
    let dropped = table.lines().filter_map(|line| line.split(' ').nth(1));
    Ok(dropped.filter_map(|number| u64::from_str_radix(number, 16).ok()).sum())
}

fn listen(target: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(target)?;
    setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER)?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

fn connect(source: IpAddr, target: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(source, 0))?;
    socket.connect(target)?;
    Ok(socket)
}

/// How many were sent; `total` says so to the receiver, once it is known.
#[expect(clippy::disallowed_methods, reason = "it keeps a pace")]
fn send(
    socket: &UdpSocket,
    per_second: u32,
    stop: &AtomicBool,
    total: &AtomicU64,
) -> io::Result<u64> {
    let start = Instant::now();
    let mut sent: u64 = 0;
    let mut result = stay_on_this_cpu();
    while !stop.load(Ordering::Relaxed) && result.is_ok() {
        let elapsed = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let due = elapsed.saturating_mul(per_second.into()) / 1_000_000;
        for _ in 0..due.saturating_sub(sent).min(BURST) {
            match socket.send(&sent.to_be_bytes()) {
                Ok(_) => sent = sent.saturating_add(1),
                // Somebody's ICMP for an earlier one; this one was not sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => result = Err(error),
            }
        }
        thread::sleep(TICK);
    }
    total.store(sent, Ordering::Relaxed);
    result.map(|()| sent)
}

/// Frames that a CPU sends queue up behind each other on their way through the lab.
fn stay_on_this_cpu() -> io::Result<()> {
    let mut here = CpuSet::new();
    here.set(sched_getcpu()?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &here)?)
}

#[derive(Debug, Default)]
struct Seen {
    received: u64,
    duplicated: u64,
    reordered: u64,
    longest_gap: Duration,
    bits: Vec<u64>,
    next: u64,
}

impl Seen {
    fn add(&mut self, number: u64) {
        let Ok(word) = usize::try_from(number / 64) else { return };
        if self.bits.len() <= word {
            self.bits.resize(word.saturating_add(1), 0);
        }
        let bit = 1 << (number % 64);
        let Some(word) = self.bits.get_mut(word) else { return };
        if *word & bit != 0 {
            self.duplicated = self.duplicated.saturating_add(1);
            return;
        }
        *word |= bit;
        self.received = self.received.saturating_add(1);
        if number < self.next {
            self.reordered = self.reordered.saturating_add(1);
        }
        self.next = self.next.max(number.saturating_add(1));
    }
}

#[expect(clippy::disallowed_methods, reason = "a gap is measured")]
fn receive(socket: &UdpSocket, total: &AtomicU64, arrived: &AtomicU64) -> Seen {
    let mut seen = Seen::default();
    let mut last = Instant::now();
    loop {
        let mut number = [0; 8];
        if let Ok(8) = socket.recv(&mut number) {
            if seen.received > 0 {
                seen.longest_gap = seen.longest_gap.max(last.elapsed());
            }
            last = Instant::now();
            seen.add(u64::from_be_bytes(number));
            arrived.store(seen.received, Ordering::Relaxed);
        }
        let total = total.load(Ordering::Relaxed);
        if seen.received >= total || (total != u64::MAX && last.elapsed() > REST) {
            return seen;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_comes_twice_or_late_is_seen() {
        let mut seen = Seen::default();
        for number in [0, 1, 3, 3, 2, 200] {
            seen.add(number);
        }
        assert_eq!((seen.received, seen.duplicated, seen.reordered), (5, 1, 1));
    }
}

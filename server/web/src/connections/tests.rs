use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::*;

/// Lets a connection in whose socket was read once, and had nothing.
fn idle(connections: &Arc<Connections>, peer: IpAddr) -> Option<Admitted> {
    let admitted = connections.admit(peer)?;
    admitted.connection().note_read(true);
    Some(admitted)
}

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
}

fn connections(all: usize, people: usize, unproven: usize, per_address: usize) -> Arc<Connections> {
    Connections::new(Limits {
        all,
        people,
        unproven,
        per_address,
        proxies: vec!["198.51.100.0/24".parse().unwrap()],
    })
}

#[test]
fn one_address_that_shows_nothing_takes_its_share_and_no_more() {
    let connections = connections(100, 4, 50, 3);
    let held: Vec<_> = (0..3)
        .map(|_| idle(&connections, address(1)).unwrap())
        .collect();
    let other = idle(&connections, address(2)).unwrap();
    let fourth = idle(&connections, address(1)).unwrap();
    assert!(
        held[0].connection().closed().is_cancelled(),
        "the oldest gives way"
    );
    assert!(!held[1].connection().closed().is_cancelled());
    assert!(!other.connection().closed().is_cancelled());
    assert!(!fourth.connection().closed().is_cancelled());
    assert_eq!(connections.count(), (5, 4));
    drop(held);
    assert_eq!(connections.count(), (2, 2));
}

#[test]
fn who_has_shown_a_ticket_or_a_token_never_gives_way() {
    let connections = connections(100, 4, 4, 2);
    // A plant: all its devices have one address.
    let plant: Vec<_> = (0..20)
        .map(|_| {
            let admitted = idle(&connections, address(1)).unwrap();
            admitted.connection().prove(Who::Device).unwrap();
            admitted
        })
        .collect();
    let strangers: Vec<_> = (0..60)
        .filter_map(|_| idle(&connections, address(1)))
        .collect();
    assert!(
        plant
            .iter()
            .all(|p| !p.connection().closed().is_cancelled())
    );
    let open = strangers
        .iter()
        .filter(|s| !s.connection().closed().is_cancelled());
    assert_eq!(open.count(), 2);
}

#[test]
fn an_address_with_one_connection_keeps_it_while_others_open_thousands() {
    let connections = connections(100, 4, 8, 6);
    let mine = idle(&connections, address(9)).unwrap();
    let mut held = Vec::new();
    for n in 0..90 {
        held.push(idle(&connections, address(1 + n % 3)).unwrap());
    }
    assert!(!mine.connection().closed().is_cancelled());
    let open = held
        .iter()
        .filter(|h| !h.connection().closed().is_cancelled());
    assert_eq!(open.count(), 7);
    drop(held);
    assert!(connections.inner().by_weight.len() == 1 && connections.inner().by_address.len() == 1);
}

#[test]
fn a_request_that_is_being_answered_is_not_cut_off_for_a_newcomer() {
    let connections = connections(100, 4, 2, 2);
    let first = idle(&connections, address(1)).unwrap();
    first.connection().begin(Phase::Request);
    let second = idle(&connections, address(1)).unwrap();
    second.connection().begin(Phase::Answer);
    assert!(idle(&connections, address(1)).is_none());
    // A reader who does not read gives way.
    second.connection().note_written(None);
    assert!(idle(&connections, address(1)).is_some());
    assert!(second.connection().closed().is_cancelled());
    assert!(!first.connection().closed().is_cancelled());
}

#[test]
fn the_last_places_are_for_people() {
    let connections = connections(3, 2, 3, 3);
    let devices: Vec<_> = (0..3)
        .map(|n| {
            let admitted = idle(&connections, address(n)).unwrap();
            admitted.connection().prove(Who::Device).unwrap();
            admitted
        })
        .collect();
    let device = idle(&connections, address(9)).unwrap();
    device.connection().prove(Who::Device).unwrap_err();
    assert!(
        device.connection().note_refusal(),
        "it is closed after its answer"
    );
    let person = idle(&connections, address(10)).unwrap();
    person.connection().prove(Who::Person).unwrap();
    assert!(
        device.connection().closed().is_cancelled(),
        "it gives way at once"
    );
    drop(device);
    let another = idle(&connections, address(11)).unwrap();
    another.connection().prove(Who::Person).unwrap();
    drop(devices);
}

#[test]
fn a_proxy_has_no_limit_and_what_it_forwards_counts_from_it_alone() {
    let connections = connections(100, 4, 50, 1);
    let proxy: IpAddr = "198.51.100.7".parse().unwrap();
    let held: Vec<_> = (0..10)
        .map(|_| idle(&connections, proxy).unwrap())
        .collect();
    assert!(held.iter().all(|h| !h.connection().closed().is_cancelled()));
    let mut headers = axum::http::HeaderMap::new();
    headers.append(
        "x-forwarded-for",
        "203.0.113.66, 192.0.2.5".parse().unwrap(),
    );
    headers.append("x-forwarded-for", "198.51.100.9".parse().unwrap());
    assert_eq!(held[0].connection().client(&headers), address(5));
    let stranger = idle(&connections, address(1)).unwrap();
    assert_eq!(stranger.connection().client(&headers), address(1));
}

#[test]
fn networks_are_read_and_compared_by_their_bits() {
    let network: Network = "10.1.0.0/16".parse().unwrap();
    assert!(network.contains("10.1.255.1".parse().unwrap()));
    assert!(network.contains("::ffff:10.1.2.3".parse().unwrap()));
    assert!(!network.contains("10.2.0.1".parse().unwrap()));
    let all: Network = "::/0".parse().unwrap();
    assert!(all.contains("2001:db8::1".parse().unwrap()));
    assert!(!all.contains("10.1.2.3".parse().unwrap()));
    let one = Network::of_one_client("2001:db8:1:2:3::4".parse().unwrap());
    assert_eq!(
        one,
        Network::of_one_client("2001:db8:1:2::9".parse().unwrap())
    );
    for wrong in ["", "10.1.0.0/33", "host", "10.1.0.0/", "::/129"] {
        assert!(wrong.parse::<Network>().is_err(), "{wrong}");
    }
}

#[test]
fn limits_leave_descriptors_for_people_whatever_the_system_allows() {
    for files in [0, 64, 1_024, 65_536, u64::MAX] {
        let limits = Limits::within(files, Vec::new());
        assert!(limits.people > 0 && limits.per_address > 0, "{files}");
        assert!(limits.per_address <= limits.unproven && limits.unproven < limits.all);
    }
    let usual = Limits::within(1_024, Vec::new());
    assert_eq!((usual.all, usual.people), (896, 32));
}

#[test]
fn who_was_not_looked_at_yet_and_who_is_worked_for_stay_before_those_in_line() {
    let connections = connections(100, 4, 50, 2);
    let unread = connections.admit(address(1)).unwrap();
    let in_line = connections.admit(address(1)).unwrap();
    assert!(connections.admit(address(1)).is_none());
    in_line.connection().begin(Phase::Turn);
    let third = connections.admit(address(1)).unwrap();
    assert!(in_line.connection().closed().is_cancelled());
    assert!(!unread.connection().closed().is_cancelled());
    // It has let the server look in vain.
    unread.connection().note_read(true);
    let _fourth = connections.admit(address(1)).unwrap();
    assert!(unread.connection().closed().is_cancelled());
    assert!(!third.connection().closed().is_cancelled());
}

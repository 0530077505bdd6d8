//! A question of the domain name system (RFC 1035, section 4): which name servers has the root?

/// A query with the number of this process, recursion desired, one question: `.` of type NS.
pub(super) fn question() -> Vec<u8> {
    let [.., high, low] = std::process::id().to_be_bytes();
    vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1]
}

//! Power cuts: after every operation of an update, everything that the medium may hold then, and
//! again during the recovery from that. Also with each sync left out, which the checks must notice.

mod boot;
mod device;
mod model;
mod real_cut;
mod simulated;
mod verdict;
mod versions;

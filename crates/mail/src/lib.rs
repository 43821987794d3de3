//! The words of mail: address, envelope, reply, header block, trace fields, reports, ids

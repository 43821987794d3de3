//! Conversion of the library's record data (RDATA) to [`DnsRecord`], with the presentation forms of types that have no
//! variant of their own.
//!
//! The library's own presentation forms are not used where they cannot be parsed again or let a record's owner forge
//! text: SVCB lists end in a comma, and quotes in CAA values are not escaped.

use hickory_resolver::proto::rr::rdata::svcb::{Mandatory, SVCB, SvcParamKey, SvcParamValue};
use hickory_resolver::proto::rr::rdata::{CAA, NAPTR, SOA, TLSA};
use hickory_resolver::proto::rr::{Name, RData};
use hickory_resolver::proto::serialize::binary::BinEncodable;

use crate::DnsRecord;

/// The record with this data; none if the library cannot write its octets. Empty data does not get here: the library
/// refuses the whole message.
pub(crate) fn record(data: &RData) -> Option<DnsRecord> {
    Some(match data {
        RData::A(address) => DnsRecord::A(address.0),
        RData::AAAA(address) => DnsRecord::Aaaa(address.0),
        RData::MX(mx) => DnsRecord::Mx { preference: mx.preference, exchange: text(&mx.exchange) },
        RData::TXT(txt) => DnsRecord::Txt(txt.txt_data.concat()),
        RData::PTR(name) => DnsRecord::Ptr(text(&name.0)),
        RData::NS(name) => DnsRecord::Ns(text(&name.0)),
        RData::CNAME(name) => DnsRecord::Cname(text(&name.0)),
        RData::SRV(srv) => DnsRecord::Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: text(&srv.target),
        },
        RData::TLSA(tlsa) => association(tlsa),
        other => DnsRecord::Other { kind: other.record_type().into(), text: presentation(other)? },
    })
}

fn association(tlsa: &TLSA) -> DnsRecord {
    DnsRecord::Tlsa {
        usage: tlsa.cert_usage.into(),
        selector: tlsa.selector.into(),
        matching: tlsa.matching.into(),
        data: tlsa.cert_data.clone(),
    }
}

/// The name without its final dot, as mail writes names; the root keeps its dot, since it would be empty otherwise. A
/// query for the text is a query for the name, except for labels that would not convert back (with a dot, a backslash,
/// a space): those are escaped, and so name nothing that exists.
pub(crate) fn text(name: &Name) -> String {
    let plain = |label: &[u8]| label.iter().all(|b| b.is_ascii_graphic() && !b".\\".contains(b));
    if !name.is_root() && name.iter().all(plain) {
        let labels: Vec<_> = name.iter().map(String::from_utf8_lossy).collect();
        return labels.join(".");
    }
    let mut text = name.to_ascii();
    if text.len() > 1 && text.ends_with('.') {
        text.pop();
    }
    text
}

/// The form in which a type's own RFC writes its data, names without their final dot; the generic form for types
/// that have none here.
fn presentation(data: &RData) -> Option<String> {
    Some(match data {
        RData::SOA(soa) => soa_form(soa),
        RData::CAA(caa) => caa_form(caa),
        RData::SVCB(svcb) => svcb_form(svcb),
        RData::HTTPS(https) => svcb_form(&https.0),
        RData::NAPTR(naptr) => naptr_form(naptr),
        RData::HINFO(hinfo) => format!("{} {}", quoted(&hinfo.cpu), quoted(&hinfo.os)),
        RData::SMIMEA(smimea) => association(&smimea.0).to_string(),
        // The fingerprint is written as the data of TLSA is.
        RData::SSHFP(sshfp) => sshfp.to_string().to_ascii_lowercase(),
        RData::OPENPGPKEY(key) => key.to_string(),
        other => generic_form(&other.to_bytes().ok()?),
    })
}

/// RFC 1035 section 3.3.13. The intervals are unsigned, whatever the library says.
fn soa_form(soa: &SOA) -> String {
    let [refresh, retry, expire] = [soa.refresh, soa.retry, soa.expire].map(i32::cast_unsigned);
    let (primary, mailbox) = (text(&soa.mname), text(&soa.rname));
    format!("{primary} {mailbox} {} {refresh} {retry} {expire} {}", soa.serial, soa.minimum)
}

/// RFC 8659 section 4.1.1.
fn caa_form(caa: &CAA) -> String {
    format!("{} {} {}", caa.flags(), caa.tag, quoted(&caa.value))
}

/// RFC 3403 section 4.1.
fn naptr_form(naptr: &NAPTR) -> String {
    let [flags, services, regexp] = [&naptr.flags, &naptr.services, &naptr.regexp].map(|text| quoted(text));
    let target = text(&naptr.replacement);
    format!("{} {} {flags} {services} {regexp} {target}", naptr.order, naptr.preference)
}

/// RFC 9460 section 2.1, with keys in the order of the record.
fn svcb_form(svcb: &SVCB) -> String {
    let mut form = format!("{} {}", svcb.svc_priority, text(&svcb.target_name));
    for (key, value) in &svcb.svc_params {
        form.push(' ');
        form.push_str(&key_form(*key));
        if let Some(value) = value_form(value) {
            form.push('=');
            form.push_str(&value);
        }
    }
    form
}

fn key_form(key: SvcParamKey) -> String {
    match key {
        SvcParamKey::Unknown(number) => format!("key{number}"),
        known => known.to_string(),
    }
}

/// The value of a parameter; none for one without a value.
fn value_form(value: &SvcParamValue) -> Option<String> {
    Some(match value {
        SvcParamValue::Mandatory(Mandatory(keys)) => joined(keys.iter().map(|key| key_form(*key))),
        // RFC 9460 appendix A.1: what separates items is escaped within them, before the string as a whole is.
        SvcParamValue::Alpn(alpn) => {
            let ids = alpn.0.iter().map(|id| id.replace('\\', r"\\").replace(',', r"\,"));
            quoted(joined(ids).as_bytes())
        }
        SvcParamValue::NoDefaultAlpn => return None,
        SvcParamValue::Port(port) => port.to_string(),
        SvcParamValue::Ipv4Hint(hint) => joined(hint.0.iter().map(ToString::to_string)),
        SvcParamValue::Ipv6Hint(hint) => joined(hint.0.iter().map(ToString::to_string)),
        SvcParamValue::EchConfigList(list) => list.to_string().replace('"', ""),
        SvcParamValue::Unknown(octets) if octets.0.is_empty() => return None,
        SvcParamValue::Unknown(octets) => quoted(&octets.0),
    })
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(",")
}

/// A character string in quotes, with escapes (RFC 1035 section 5.1).
fn quoted(octets: &[u8]) -> String {
    let escaped = octets.iter().fold(String::new(), |mut text, &octet| {
        match octet {
            b'"' | b'\\' => text.extend(['\\', char::from(octet)]),
            b' '..=b'~' => text.push(char::from(octet)),
            _ => text.extend(format!("\\{octet:03}").chars()),
        }
        text
    });
    format!("\"{escaped}\"")
}

/// RFC 3597 section 5.
fn generic_form(octets: &[u8]) -> String {
    let hex: String = octets.iter().flat_map(|octet| [octet >> 4, octet & 15]).map(hex_digit).collect();
    format!(r"\# {} {hex}", octets.len())
}

fn hex_digit(value: u8) -> char {
    char::from_digit(value.into(), 16).unwrap_or('0')
}

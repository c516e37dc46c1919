//! What requests look like that do no harm: a sample, to tell which strings are rare.
//!
//! It only decides which of several sound filters is taken; a string that stands in it is still found.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Header values, addresses, forms, JSON and prose, in lower case.
const TEXT: &str = "\
mozilla/5.0 (windows nt 10.0; win64; x64) applewebkit/537.36 (khtml, like gecko) chrome/126.0.0.0 safari/537.36 edg/126.0 \
mozilla/5.0 (macintosh; intel mac os x 10_15_7) applewebkit/605.1.15 (khtml, like gecko) version/17.4 mobile/15e148 safari/604.1 \
mozilla/5.0 (x11; ubuntu; linux x86_64; rv:127.0) gecko/20100101 firefox/127.0 mozilla/5.0 (iphone; cpu iphone os 17_5 like mac os x) \
mozilla/5.0 (linux; android 14; pixel 8) curl/8.5.0 okhttp/4.12.0 python-requests/2.31.0 go-http-client/2.0 \
text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/json, text/plain, \
en-us,en;q=0.9,de-de;q=0.8,fr;q=0.5 gzip, deflate, br, zstd keep-alive close upgrade-insecure-requests no-cache max-age=0 no-store \
application/x-www-form-urlencoded; charset=utf-8 multipart/form-data; boundary=----webkitformboundary content-disposition: form-data; name= \
filename= content-type: content-length: accept-encoding accept-language user-agent referer origin host cookie authorization bearer basic \
if-modified-since if-none-match etag x-forwarded-for x-requested-with xmlhttprequest sec-fetch-site same-origin sec-fetch-mode navigate \
sec-fetch-dest document sec-fetch-user sec-ch-ua sec-ch-ua-mobile sec-ch-ua-platform cross-site cors empty range bytes=0-1023 \
http://www.example.com/ https://shop.example.org/products/list?page=2&sort=price&order=asc&category=shoes&color=red&size=42&limit=20 \
/index.html /index.php /images/logo.png /static/js/main.js /static/css/style.css /api/v1/users/1234/orders /search?q=summer+dress&lang=en \
/login /logout /account/settings /cart /checkout /favicon.ico /robots.txt /wp-content/uploads/2024/05/photo.jpg get / http/1.1 post put delete head options \
session=8f14e45fceea167a5a36dedd4bea2543; theme=dark; lang=en; _ga=ga1.2.1234567890.1700000000; csrftoken=q9x3; consent=true; jsessionid=; phpsessid=; \
name=alice+miller&email=alice.miller%40example.com&street=main+street+12&city=berlin&zip=10115&country=germany&phone=%2b49+30+1234567&message=hello \
first_name last_name username password password_confirm address company title description comment subject content quantity product_id item_id user_id \
created_at updated_at status type date time value total price currency amount number token code key id url link image file text data list items results count \
{\"id\":1234,\"name\":\"item number 7\",\"price\":19.99,\"tags\":[\"red\",\"large\"],\"active\":true,\"parent\":null,\"items\":[{\"type\":\"text\",\"value\":\"ok\"}]} \
json.items.array_0.name json.data.attributes.description json.user.id 550e8400-e29b-41d4-a716-446655440000 2024-05-17t10:32:45.123z 192.168.0.1 127.0.0.1 \
the quick brown fox jumps over the lazy dog and runs away into the forest, where it sleeps until morning. later that day it woke up hungry and went home again. \
this is a very nice thing to have at home; we would like to thank you for your order and hope that everything works as expected. please call me back tomorrow. \
there are many people who think that it would be better if they could see what is going on before they make up their minds about which one they want to take. \
i have been trying to find out how long it takes, because my friend said that she had already waited for more than three weeks. is there anything else i should know? \
our team can help with questions about delivery, returns, payment and your account. you may also write to us or visit one of our shops in your city. \
when the children came out of the school they saw that the weather had changed: it was raining, and nobody had brought a coat. so they all ran to the bus together. \
research, development, information, international, government, university, available, important, different, through, another, between, something, following, \
business, service, system, program, question, during, without, against, however, several, public, national, community, because, under, never, always, after, again \
";

/// How often each three bytes in a row stand in the sample.
static TRIPLES: LazyLock<HashMap<[u8; 3], u32>> = LazyLock::new(|| {
    let mut counts = HashMap::new();
    for triple in TEXT.as_bytes().windows(3) {
        *counts.entry([triple[0], triple[1], triple[2]]).or_default() += 1;
    }
    counts
});

/// The share of places in the sample at which these three bytes stand.
pub(super) fn share_of_triple(triple: [u8; 3]) -> f32 {
    TRIPLES.get(&triple).copied().unwrap_or(0) as f32 / TEXT.len() as f32
}

/// The share of places in the sample at which a string begins.
pub(super) fn share(string: &[u8]) -> f32 {
    match string {
        [first, second, third, rest @ ..] => {
            let triple = share_of_triple([*first, *second, *third]);
            if triple == 0.0 || rest.is_empty() {
                return triple;
            }
            memchr::memmem::find_iter(TEXT.as_bytes(), string).count() as f32 / TEXT.len() as f32
        }
        _ => memchr::memmem::find_iter(TEXT.as_bytes(), string).count() as f32 / TEXT.len() as f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_told() {
        assert!(share(b"the ") > 0.001);
        assert!(share(b"xp_cmdshell") == 0.0);
        assert!(share_of_triple(*b"htt") > 0.0);
        assert_eq!(TEXT, TEXT.to_ascii_lowercase());
    }
}

#include "model/safetensors_scan.h"

#include "base/err.h"

/* Offsets and sizes above this are nonsense, and stay far from overflow in sums. */
#define MAX_INTEGER ((i64)1 << 48)

int scan_fail(const struct scan *s, const char *expected)
{
    return err_set(ERR_FORMAT, "header byte %lld: expected %s", (long long)(s->at - s->begin),
                   expected);
}

static void skip_space(struct scan *s)
{
    while (s->at < s->end &&
           (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
        s->at++;
}

bool scan_take(struct scan *s, char c)
{
    skip_space(s);
    if (s->at == s->end || *s->at != (u8)c)
        return false;
    s->at++;
    return true;
}

int scan_expect(struct scan *s, char c)
{
    char expected[] = "'?'";
    expected[1] = c;
    return scan_take(s, c) ? OK : scan_fail(s, expected);
}

struct sink {
    char *text;
    i64 capacity, length;
};

static void put_byte(struct sink *out, u32 byte)
{
    if (out->length + 1 < out->capacity)
        out->text[out->length] = (char)byte;
    out->length++;
}

static void put_code_point(struct sink *out, u32 c)
{
    if (c < 0x80) {
        put_byte(out, c);
        return;
    }
    if (c >= 0x10000) {
        put_byte(out, 0xf0 | c >> 18);
        put_byte(out, 0x80 | (c >> 12 & 63));
    } else if (c >= 0x800) {
        put_byte(out, 0xe0 | c >> 12);
    } else {
        put_byte(out, 0xc0 | c >> 6);
        put_byte(out, 0x80 | (c & 63));
        return;
    }
    put_byte(out, 0x80 | (c >> 6 & 63));
    put_byte(out, 0x80 | (c & 63));
}

static int hex4(struct scan *s, u32 *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++, s->at++) {
        u32 c = s->at < s->end ? *s->at : 0;
        u32 letter = c | 32;
        if (c >= '0' && c <= '9')
            *out = *out << 4 | (c - '0');
        else if (letter >= 'a' && letter <= 'f')
            *out = *out << 4 | (letter - 'a' + 10);
        else
            return scan_fail(s, "four hexadecimal digits after \\u");
    }
    return OK;
}

/* After "\u". Surrogates come in pairs; NUL would cut the name short, so it is refused. */
static int scan_unicode(struct scan *s, struct sink *out)
{
    u32 c, low;
    TRY(hex4(s, &c));
    if (c >= 0xd800 && c < 0xdc00) {
        if (s->end - s->at < 2 || s->at[0] != '\\' || s->at[1] != 'u')
            return scan_fail(s, "the second half of a surrogate pair");
        s->at += 2;
        TRY(hex4(s, &low));
        if (low < 0xdc00 || low > 0xdfff)
            return scan_fail(s, "the second half of a surrogate pair");
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    } else if (c == 0 || (c >= 0xdc00 && c <= 0xdfff)) {
        return scan_fail(s, "a character other than NUL or half a surrogate pair");
    }
    put_code_point(out, c);
    return OK;
}

static int scan_escape(struct scan *s, struct sink *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    u32 c = s->at < s->end ? *s->at : 0;
    if (c == 'u') {
        s->at++;
        return scan_unicode(s, out);
    }
    for (int i = 0; from[i]; i++) {
        if (c == (u8)from[i]) {
            s->at++;
            put_byte(out, (u8)to[i]);
            return OK;
        }
    }
    return scan_fail(s, "a JSON escape after \\");
}

int scan_string(struct scan *s, char *text, i64 capacity, i64 *length)
{
    struct sink out = { text, capacity, 0 };
    if (!scan_take(s, '"'))
        return scan_fail(s, "a string");
    for (;;) {
        if (s->at == s->end)
            return scan_fail(s, "the string's closing quote");
        u8 c = *s->at;
        if (c < 0x20)
            return scan_fail(s, "no bare control character inside a string");
        s->at++;
        if (c == '"')
            break;
        if (c == '\\')
            TRY(scan_escape(s, &out));
        else
            put_byte(&out, c);
    }
    if (capacity > 0)
        text[i64_min(out.length, capacity - 1)] = '\0';
    *length = out.length;
    return OK;
}

int scan_integer(struct scan *s, i64 *out)
{
    skip_space(s);
    const u8 *first = s->at;
    i64 value = 0;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9') {
        value = value * 10 + (*s->at - '0');
        if (value > MAX_INTEGER)
            return scan_fail(s, "a number of at most 2^48");
        s->at++;
    }
    if (s->at == first || (*first == '0' && s->at > first + 1))
        return scan_fail(s, "a whole number, not negative, without leading zeros");
    *out = value;
    return OK;
}

int scan_end(struct scan *s)
{
    while (s->at < s->end && *s->at == ' ')
        s->at++;
    return s->at == s->end ? OK : scan_fail(s, "nothing but spaces after the header's object");
}

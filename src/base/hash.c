#include "base/hash.h"

#include "base/err.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <string.h>
#include <xxhash.h>

/* --- CRC32C: slicing by 8, or the SSE4.2 instruction ------------------------------ */

static u32 crc_table[8][256];
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;

static void fill_crc_table(void)
{
    for (u32 i = 0; i < 256; i++) {
        u32 c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? 0x82F63B78u ^ c >> 1 : c >> 1; /* reversed 0x1EDC6F41 */
        crc_table[0][i] = c;
    }
    for (u32 i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++)
            crc_table[k][i] = crc_table[k - 1][i] >> 8 ^ crc_table[0][crc_table[k - 1][i] & 255];
}

static u32 crc_portable(u32 c, const u8 *p, i64 bytes)
{
    pthread_once(&crc_once, fill_crc_table);
    for (; bytes >= 8; bytes -= 8, p += 8) {
        u32 low, high;
        memcpy(&low, p, 4);
        memcpy(&high, p + 4, 4);
        low ^= c;
        c = crc_table[7][low & 255] ^ crc_table[6][low >> 8 & 255] ^
            crc_table[5][low >> 16 & 255] ^ crc_table[4][low >> 24] ^
            crc_table[3][high & 255] ^ crc_table[2][high >> 8 & 255] ^
            crc_table[1][high >> 16 & 255] ^ crc_table[0][high >> 24];
    }
    while (bytes-- > 0)
        c = c >> 8 ^ crc_table[0][(c ^ *p++) & 255];
    return c;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static u32 crc_hardware(u32 c, const u8 *p, i64 bytes)
{
    u64 wide = c;
    for (; bytes >= 8; bytes -= 8, p += 8) {
        u64 word;
        memcpy(&word, p, 8);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    c = (u32)wide;
    while (bytes-- > 0)
        c = __builtin_ia32_crc32qi(c, *p++);
    return c;
}
#endif

u32 crc32c(u32 crc, const void *data, i64 bytes)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return ~crc_hardware(~crc, data, bytes);
#endif
    return ~crc_portable(~crc, data, bytes);
}

u64 hash64(const void *data, i64 bytes, u64 seed)
{
    return XXH3_64bits_withSeed(data, (size_t)bytes, seed);
}

/* --- SHA-256 through OpenSSL ------------------------------------------------------- */

void sha256_init(struct sha256 *h)
{
    h->context = EVP_MD_CTX_new();
    if (!h->context || EVP_DigestInit_ex(h->context, EVP_sha256(), NULL) != 1)
        err_panic("OpenSSL has no SHA-256");
}

void sha256_add(struct sha256 *h, const void *data, i64 bytes)
{
    EVP_DigestUpdate(h->context, data, (size_t)bytes);
}

void sha256_fini(struct sha256 *h, char hex[65])
{
    static const char digits[] = "0123456789abcdef";
    u8 digest[32];
    EVP_DigestFinal_ex(h->context, digest, NULL);
    EVP_MD_CTX_free(h->context);
    h->context = NULL;
    for (int i = 0; i < 32; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[64] = '\0';
}

void sha256_of(const void *data, i64 bytes, char hex[65])
{
    struct sha256 h;
    sha256_init(&h);
    sha256_add(&h, data, bytes);
    sha256_fini(&h, hex);
}

int sha256_file(const char *path, char hex[65])
{
    static _Thread_local u8 buffer[1 << 16];
    int fd = sys_open(path, O_RDONLY, 0);
    if (fd < 0)
        return err_set(ERR_SYS, "open %s: %s", path, strerror(errno));
    struct sha256 h;
    sha256_init(&h);
    i64 n;
    while ((n = sys_read_full(fd, buffer, sizeof buffer)) > 0)
        sha256_add(&h, buffer, n);
    int saved = errno;
    sha256_fini(&h, hex);
    sys_close(fd);
    return n < 0 ? err_set(ERR_SYS, "read %s: %s", path, strerror(saved)) : OK;
}

#include "data/journal.h"

#include "base/err.h"
#include "base/json.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 4096, FORMAT_VERSION = 1, LARGEST = 1 << 20 };
static const char file_name[] = "progress.json";

/* Every number of the journal: its name, place and width. */
struct field {
    char name[32];
    size_t offset;
    size_t bytes;
};
#define FIELD(name, member)                                                              \
    { name, offsetof(struct journal, member), sizeof(((struct journal *)0)->member) }
#define COUNTS(name, member)                                                             \
    FIELD(name ".documents", member.documents), FIELD(name ".tokens", member.tokens),    \
        FIELD(name ".text_bytes", member.text_bytes),                                    \
        FIELD(name ".val_documents", member.val_documents),                              \
        FIELD(name ".val_tokens", member.val_tokens),                                    \
        FIELD(name ".val_bytes", member.val_bytes),                                      \
        FIELD(name ".duplicates", member.duplicates), FIELD(name ".cut", member.cut),    \
        FIELD(name ".malformed", member.malformed), FIELD(name ".skipped", member.skipped)
#define SHARD(name, member)                                                   \
    FIELD(name ".index", member.index), FIELD(name ".tokens", member.tokens), \
        FIELD(name ".documents", member.documents),                           \
        FIELD(name ".text_bytes", member.text_bytes),                         \
        FIELD(name ".loss_tokens", member.loss_tokens),                       \
        FIELD(name ".masked", member.masked),                                 \
        FIELD(name ".tokens_crc", member.tokens_crc),                         \
        FIELD(name ".documents_crc", member.documents_crc),                   \
        FIELD(name ".mask_crc", member.mask_crc),                             \
        FIELD(name ".mask_byte", member.mask_byte)

static const struct field fields[] = {
    FIELD("input", input),   FIELD("unit", unit), FIELD("log_bytes", log_bytes),
    FIELD("finished", finished), COUNTS("total", total), COUNTS("in_input", in_input),
    SHARD("train", train),   SHARD("val", val),
};

static int path_of(char path[PATH_BYTES], const char *folder, const char *name)
{
    if (snprintf(path, PATH_BYTES, "%s/%s", folder, name) >= PATH_BYTES)
        return err_set(ERR_LIMIT, "the path %.60s... is too long", folder);
    return OK;
}

static int write_and_close(int fd, const char *path, const void *bytes, i64 n)
{
    int rc = sys_write_full(fd, bytes, n);
    if (rc == 0)
        rc = sys_fsync(fd);
    int error = errno;
    if (sys_close(fd) != 0 && rc == 0) {
        error = errno;
        rc = -1;
    }
    return rc ? err_set(ERR_SYS, "write %s: %s", path, strerror(error)) : OK;
}

int journal_replace_file(const char *folder, const char *name, const void *bytes, i64 n)
{
    char path[PATH_BYTES], fresh[PATH_BYTES];
    TRY(path_of(path, folder, name));
    if (snprintf(fresh, PATH_BYTES, "%s.tmp", path) >= PATH_BYTES)
        return err_set(ERR_LIMIT, "the path %.60s... is too long", folder);
    int fd = sys_open(fresh, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (fd < 0)
        return err_set(ERR_SYS, "create %s: %s", fresh, strerror(errno));
    TRY(write_and_close(fd, fresh, bytes, n));
    if (sys_rename(fresh, path) != 0)
        return err_set(ERR_SYS, "rename %s: %s", fresh, strerror(errno));
    if (sys_fsync_dir(folder) != 0)
        return err_set(ERR_SYS, "flush %s: %s", folder, strerror(errno));
    return OK;
}

int journal_save(const struct journal *j, const char *folder, const char *fingerprint)
{
    struct json out;
    json_writer_init(&out);
    out.indent = true;
    json_begin_object(&out);
    json_put_int(&out, "version", FORMAT_VERSION);
    json_put_str(&out, "fingerprint", fingerprint);
    for (i64 i = 0; i < COUNT_OF(fields); i++) {
        const char *at = (const char *)j + fields[i].offset;
        u32 narrow;
        i64 value = 0;
        memcpy(&narrow, at, 4);
        memcpy(&value, at, fields[i].bytes);
        json_put_int(&out, fields[i].name, fields[i].bytes == 4 ? narrow : value);
    }
    json_end(&out);
    int rc = journal_replace_file(folder, file_name, out.out.data, out.out.length);
    json_writer_fini(&out);
    return rc;
}

/* False when a number is missing or impossible. */
static bool read_fields(struct journal *j, const json_t *root)
{
    for (i64 i = 0; i < COUNT_OF(fields); i++) {
        const json_t *item = json_object_get(root, fields[i].name);
        i64 value = json_integer_value(item);
        u32 narrow = (u32)value;
        if (!json_is_integer(item) || value < 0 ||
            (fields[i].bytes == 4 && value > UINT32_MAX))
            return false;
        char *at = (char *)j + fields[i].offset;
        memcpy(at, fields[i].bytes == 4 ? (void *)&narrow : (void *)&value,
               fields[i].bytes);
    }
    return true;
}

int journal_load(struct journal *j, const char *folder, const char *fingerprint,
                 bool *found)
{
    char path[PATH_BYTES];
    json_t *root;
    *j = (struct journal){ 0 };
    *found = false;
    TRY(path_of(path, folder, file_name));
    if (!sys_exists(path) || json_load(path, LARGEST, &root) < 0)
        return OK;
    const char *print = json_string_value(json_object_get(root, "fingerprint"));
    i64 version = json_integer_value(json_object_get(root, "version"));
    *found = print && strcmp(print, fingerprint) == 0 && version == FORMAT_VERSION &&
             read_fields(j, root);
    json_decref(root);
    if (!*found)
        *j = (struct journal){ 0 };
    return OK;
}

int journal_remove(const char *folder)
{
    char path[PATH_BYTES];
    TRY(path_of(path, folder, file_name));
    if (sys_exists(path) && sys_unlink(path) != 0)
        return err_set(ERR_SYS, "remove %s: %s", path, strerror(errno));
    return OK;
}

#include "train/events.h"

#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Protocol-buffer wire types. */
enum { WIRE_VARINT = 0, WIRE_DOUBLE = 1, WIRE_BYTES = 2, WIRE_FLOAT = 5 };

static void put_key(struct text *t, u64 field, int wire)
{
    text_add_varint(t, field << 3 | (u64)wire);
}

static void put_bytes(struct text *t, u64 field, const char *bytes, i64 n)
{
    put_key(t, field, WIRE_BYTES);
    text_add_varint(t, (u64)n);
    text_add_bytes(t, bytes, n);
}

/* TFRecord's mask: rotate right by 15, add a constant. */
static u32 masked(const void *data, i64 bytes)
{
    u32 crc = crc32c(0, data, bytes);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static void write_record(struct events *e)
{
    u8 head[12];
    u64 length = (u64)e->data.length;
    u32 check;
    memcpy(head, &length, 8);
    check = masked(head, 8);
    memcpy(head + 8, &check, 4);
    check = masked(e->data.data, e->data.length);
    text_add_bytes(&e->data, (const char *)&check, 4);
    if (sys_write_full(e->fd, head, 12) != 0 ||
        sys_write_full(e->fd, e->data.data, e->data.length) != 0) {
        log_line(LOG_WARN, "writing the TensorBoard file: %s; it ends here", strerror(errno));
        events_close(e);
    }
}

/* Event{1 double wall_time, 2 int64 step, ...}, still open for its last field. */
static void begin_event(struct events *e, i64 step, double wall_seconds)
{
    text_clear(&e->data);
    put_key(&e->data, 1, WIRE_DOUBLE);
    text_add_bytes(&e->data, (const char *)&wall_seconds, 8);
    put_key(&e->data, 2, WIRE_VARINT);
    text_add_varint(&e->data, (u64)step);
}

int events_open(struct events *e, const char *folder)
{
    static const char version[] = "brain.Event:2";
    char host[64] = "host", path[4096];
    *e = (struct events){ .fd = -1 };
    sys_host_name(host, sizeof host);
    double now = sys_wall_seconds();
    snprintf(path, sizeof path, "%s/events.out.tfevents.%lld.%s.%d.0", folder,
             (long long)now, host, (int)getpid());
    e->fd = sys_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (e->fd < 0)
        return err_set(ERR_SYS, "create %s: %s", path, strerror(errno));
    begin_event(e, 0, now);
    put_bytes(&e->data, 3, version, (i64)strlen(version));
    write_record(e);
    return OK;
}

void events_scalar(struct events *e, i64 step, double wall_seconds, const char *tag,
                   double value)
{
    char summary[256];
    struct text value_part = { .data = summary, .capacity = sizeof summary };
    float narrow = (float)value;
    if (e->fd < 0 || strlen(tag) > 100)
        return;
    put_bytes(&value_part, 1, tag, (i64)strlen(tag)); /* Summary.Value.tag */
    put_key(&value_part, 2, WIRE_FLOAT);              /* Summary.Value.simple_value */
    text_add_bytes(&value_part, (const char *)&narrow, 4);
    begin_event(e, step, wall_seconds);
    put_key(&e->data, 5, WIRE_BYTES); /* Event.summary: one Value */
    text_add_varint(&e->data, (u64)value_part.length + 2);
    put_bytes(&e->data, 1, summary, value_part.length);
    write_record(e);
}

void events_close(struct events *e)
{
    if (e->fd >= 0)
        sys_close(e->fd);
    e->fd = -1;
    text_fini(&e->data);
}

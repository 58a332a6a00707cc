#include "support/crash.h"

#include "base/hash.h"
#include "base/rng.h"
#include "base/sys.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_FD = 1024, NAME = 64, ROOT = 0, NONE = -1 };

enum kind { LINK, UNLINK, RENAME, WRITE, SYNC, MARK };

struct op {
    enum kind kind;
    int inode;  /* of the file or folder that is linked, renamed, written or fsynced */
    int parent; /* LINK, UNLINK, RENAME */
    char name[NAME], to[NAME];
    u8 *data; /* WRITE */
    i64 offset, bytes;
    i64 mark;
    i64 durable_at; /* the fsync that covers it; INT64_MAX when none does */
};

struct entry {
    int parent, inode;
    char name[NAME];
};

struct inode {
    bool folder;
    u8 *data;
    i64 bytes;
};

struct crash_trace {
    char root[256];
    struct inode *inode; /* with the content that they had at the start */
    int inodes;
    struct entry *start, *now; /* names at the start, and while recording */
    int n_start, n_now;
    struct op *op;
    i64 n;
    int inode_of_fd[MAX_FD];
};

static void *grown(void *array, i64 n, i64 size)
{
    void *more = realloc(array, (size_t)((n + 1) * size));
    if (!more)
        abort();
    return more;
}

/* --- names ----------------------------------------------------------------------- */

static int new_inode(struct crash_trace *t, bool folder)
{
    t->inode = grown(t->inode, t->inodes, sizeof *t->inode);
    t->inode[t->inodes] = (struct inode){ .folder = folder };
    return t->inodes++;
}

static struct entry *find(struct entry *e, int n, int parent, const char *name)
{
    for (int i = 0; i < n; i++)
        if (e[i].parent == parent && strcmp(e[i].name, name) == 0)
            return &e[i];
    return NULL;
}

static void link_entry(struct entry **e, int *n, int parent, const char *name, int inode)
{
    struct entry *old = find(*e, *n, parent, name);
    if (!old) {
        *e = grown(*e, *n, sizeof **e);
        old = &(*e)[(*n)++];
    }
    old->parent = parent;
    old->inode = inode;
    snprintf(old->name, NAME, "%s", name);
}

static void unlink_entry(struct entry *e, int *n, int parent, const char *name)
{
    struct entry *old = find(e, *n, parent, name);
    if (old)
        *old = e[--*n];
}

/* Splits a path under the root into the folder's inode and the last name. False when it
 * is not under the root; the root itself gives parent NONE. */
static bool locate(struct crash_trace *t, const char *path, int *parent, char name[NAME])
{
    size_t root = strlen(t->root);
    if (strncmp(path, t->root, root) != 0 || (path[root] != '/' && path[root] != '\0'))
        return false;
    *parent = NONE;
    name[0] = '\0';
    for (const char *p = path + root; *p; p += strcspn(p, "/")) {
        p += strspn(p, "/");
        if (*p == '\0')
            break;
        struct entry *e = *parent == NONE ? NULL : find(t->now, t->n_now, *parent, name);
        *parent = *parent == NONE ? ROOT : e ? e->inode : NONE;
        snprintf(name, NAME, "%.*s", (int)strcspn(p, "/"), p);
    }
    return true;
}

/* --- recording ------------------------------------------------------------------- */

static struct op *add_op(struct crash_trace *t, struct op op)
{
    t->op = grown(t->op, t->n, sizeof *t->op);
    t->op[t->n] = op;
    return &t->op[t->n++];
}

static void note_link(struct crash_trace *t, int parent, const char *name, bool folder)
{
    struct op op = { .kind = LINK, .parent = parent, .inode = new_inode(t, folder) };
    snprintf(op.name, NAME, "%s", name);
    add_op(t, op);
    link_entry(&t->now, &t->n_now, parent, name, op.inode);
}

static void note_open(struct crash_trace *t, const struct sys_event *e)
{
    int parent;
    char name[NAME];
    t->inode_of_fd[e->fd] = NONE;
    if (!locate(t, e->path, &parent, name))
        return;
    if (parent == NONE) {
        t->inode_of_fd[e->fd] = ROOT;
        return;
    }
    if (!find(t->now, t->n_now, parent, name))
        note_link(t, parent, name, false);
    t->inode_of_fd[e->fd] = find(t->now, t->n_now, parent, name)->inode;
}

static void note_write(struct crash_trace *t, const struct sys_event *e)
{
    int inode = t->inode_of_fd[e->fd];
    if (inode == NONE)
        return;
    u8 *copy = malloc((size_t)e->bytes);
    memcpy(copy, e->data, (size_t)e->bytes);
    add_op(t, (struct op){ .kind = WRITE, .inode = inode, .data = copy, .offset = e->offset,
                           .bytes = e->bytes });
}

static void note_rename(struct crash_trace *t, const struct sys_event *e)
{
    struct op op = { .kind = RENAME };
    int parent;
    if (!locate(t, e->path, &op.parent, op.name) || !locate(t, e->to, &parent, op.to))
        return;
    if (parent != op.parent)
        abort(); /* not modelled: no caller renames across folders */
    op.inode = find(t->now, t->n_now, op.parent, op.name)->inode;
    add_op(t, op);
    unlink_entry(t->now, &t->n_now, op.parent, op.name);
    link_entry(&t->now, &t->n_now, op.parent, op.to, op.inode);
}

static void note_event(void *context, const struct sys_event *e)
{
    struct crash_trace *t = context;
    struct op op = { 0 };
    switch (e->op) {
    case SYS_OPEN:
        note_open(t, e);
        break;
    case SYS_WRITE:
        note_write(t, e);
        break;
    case SYS_RENAME:
        note_rename(t, e);
        break;
    case SYS_MKDIR:
        if (locate(t, e->path, &op.parent, op.name) && op.parent != NONE)
            note_link(t, op.parent, op.name, true);
        break;
    case SYS_UNLINK:
        op.kind = UNLINK;
        if (!locate(t, e->path, &op.parent, op.name))
            break;
        add_op(t, op);
        unlink_entry(t->now, &t->n_now, op.parent, op.name);
        break;
    case SYS_FSYNC:
        if (t->inode_of_fd[e->fd] != NONE)
            add_op(t, (struct op){ .kind = SYNC, .inode = t->inode_of_fd[e->fd] });
        break;
    case SYS_CLOSE:
        t->inode_of_fd[e->fd] = NONE;
        break;
    default:
        break;
    }
}

static void scan(struct crash_trace *t, const char *path, int parent)
{
    char **names;
    int n = sys_list(path, &names);
    for (int i = 0; i < n; i++) {
        char child[512];
        struct stat st;
        snprintf(child, sizeof child, "%s/%s", path, names[i]);
        if (sys_stat(child, &st) != 0)
            abort();
        int inode = new_inode(t, S_ISDIR(st.st_mode));
        link_entry(&t->start, &t->n_start, parent, names[i], inode);
        if (S_ISDIR(st.st_mode)) {
            scan(t, child, inode);
        } else {
            i64 bytes;
            u8 *map = sys_map_file(child, &bytes);
            t->inode[inode].data = malloc((size_t)bytes + 1);
            t->inode[inode].bytes = bytes;
            memcpy(t->inode[inode].data, map, (size_t)bytes);
            sys_unmap(map, bytes);
        }
    }
    if (n >= 0)
        sys_free(names);
}

struct crash_trace *crash_record(const char *folder)
{
    struct crash_trace *t = calloc(1, sizeof *t);
    snprintf(t->root, sizeof t->root, "%s", folder);
    memset(t->inode_of_fd, 0xff, sizeof t->inode_of_fd);
    new_inode(t, true); /* ROOT */
    scan(t, folder, ROOT);
    for (int i = 0; i < t->n_start; i++)
        link_entry(&t->now, &t->n_now, t->start[i].parent, t->start[i].name, t->start[i].inode);
    sys_record(note_event, t);
    return t;
}

void crash_stop(struct crash_trace *t)
{
    (void)t;
    sys_record(NULL, NULL);
}

void crash_free(struct crash_trace *t)
{
    for (i64 i = 0; i < t->n; i++)
        free(t->op[i].data);
    for (int i = 0; i < t->inodes; i++)
        free(t->inode[i].data);
    free(t->inode);
    free(t->start);
    free(t->now);
    free(t->op);
    free(t);
}

void crash_mark(struct crash_trace *t, i64 value)
{
    add_op(t, (struct op){ .kind = MARK, .mark = value });
}

i64 crash_ops(const struct crash_trace *t)
{
    return t->n;
}

bool crash_is_fsync(const struct crash_trace *t, i64 op)
{
    return t->op[op].kind == SYNC;
}

bool crash_is_rename(const struct crash_trace *t, i64 op)
{
    return t->op[op].kind == RENAME;
}

i64 crash_mark_at(const struct crash_trace *t, i64 op)
{
    i64 mark = 0;
    for (i64 i = 0; i < op; i++)
        if (t->op[i].kind == MARK)
            mark = t->op[i].mark;
    return mark;
}

void crash_drop(struct crash_trace *t, i64 op)
{
    free(t->op[op].data);
    memmove(&t->op[op], &t->op[op + 1], (size_t)(t->n - op - 1) * sizeof *t->op);
    t->n--;
}

void crash_move(struct crash_trace *t, i64 from, i64 to)
{
    struct op moved = t->op[from];
    memmove(&t->op[to + 1], &t->op[to], (size_t)(from - to) * sizeof *t->op);
    t->op[to] = moved;
}

/* --- one state ------------------------------------------------------------------- */

static void find_durability(const struct crash_trace *t)
{
    for (i64 i = 0; i < t->n; i++) {
        struct op *op = &t->op[i];
        int covers = op->kind == WRITE ? op->inode : op->parent;
        op->durable_at = INT64_MAX;
        for (i64 k = i + 1; k < t->n && op->durable_at == INT64_MAX; k++)
            if (t->op[k].kind == SYNC && t->op[k].inode == covers)
                op->durable_at = k;
    }
}

enum fate { ABSENT, DONE, GARBAGE, TORN };

static int fates(const struct op *op, i64 crash)
{
    if (op->kind == SYNC || op->kind == MARK || op->durable_at < crash)
        return 1; /* no choice */
    return op->kind == WRITE ? 4 : 2;
}

/* A tree: names, and the content of each inode that was written since the start. */
struct tree {
    struct entry *entry;
    int n;
    struct inode *content; /* of every inode; data is owned where written is true */
    bool *written;
};

static void apply_write(const struct crash_trace *t, struct tree *tree, const struct op *op,
                        enum fate fate)
{
    struct inode *c = &tree->content[op->inode];
    i64 bytes = fate == TORN ? op->bytes / 2 : op->bytes;
    i64 end = i64_max(c->bytes, op->offset + bytes);
    u8 *data = calloc(1, (size_t)end + 1);
    if (c->bytes > 0)
        memcpy(data, c->data, (size_t)c->bytes);
    for (i64 i = 0; i < bytes; i++)
        data[op->offset + i] = fate == GARBAGE ? (u8)(op->data[i] ^ 0xa5) : op->data[i];
    if (tree->written[op->inode])
        free(c->data);
    tree->written[op->inode] = true;
    c->data = data;
    c->bytes = end;
    (void)t;
}

static void apply(const struct crash_trace *t, struct tree *tree, const struct op *op,
                  enum fate fate)
{
    if (fate == ABSENT)
        return;
    if (op->kind == WRITE)
        apply_write(t, tree, op, fate);
    if (op->kind == UNLINK || op->kind == RENAME)
        unlink_entry(tree->entry, &tree->n, op->parent, op->name);
    if (op->kind == LINK)
        link_entry(&tree->entry, &tree->n, op->parent, op->name, op->inode);
    if (op->kind == RENAME)
        link_entry(&tree->entry, &tree->n, op->parent, op->to, op->inode);
}

static void build(const struct crash_trace *t, i64 crash, const u8 *fate, struct tree *tree)
{
    *tree = (struct tree){ .n = t->n_start };
    tree->entry = malloc(sizeof *tree->entry * (size_t)(t->n_start + 1));
    if (t->n_start > 0)
        memcpy(tree->entry, t->start, sizeof *tree->entry * (size_t)t->n_start);
    tree->content = malloc(sizeof *tree->content * (size_t)t->inodes);
    memcpy(tree->content, t->inode, sizeof *tree->content * (size_t)t->inodes);
    tree->written = calloc((size_t)t->inodes, sizeof *tree->written);
    for (i64 i = 0; i < crash; i++)
        apply(t, tree, &t->op[i], (enum fate)fate[i]);
}

static void drop_tree(const struct crash_trace *t, struct tree *tree)
{
    for (int i = 0; i < t->inodes; i++)
        if (tree->written[i])
            free(tree->content[i].data);
    free(tree->written);
    free(tree->content);
    free(tree->entry);
}

static u64 hash_folder(const struct tree *tree, int parent)
{
    u64 sum = 0; /* entries in any order */
    for (int i = 0; i < tree->n; i++) {
        const struct entry *e = &tree->entry[i];
        if (e->parent != parent)
            continue;
        const struct inode *c = &tree->content[e->inode];
        u64 inside = c->folder ? hash_folder(tree, e->inode) : hash64(c->data, c->bytes, 1);
        sum += hash64(e->name, (i64)strlen(e->name), inside + c->folder);
    }
    return hash64(&sum, 8, 2);
}

static void materialise(const struct tree *tree, int parent, const char *path)
{
    for (int i = 0; i < tree->n; i++) {
        const struct entry *e = &tree->entry[i];
        char child[512];
        if (e->parent != parent)
            continue;
        snprintf(child, sizeof child, "%s/%s", path, e->name);
        if (tree->content[e->inode].folder) {
            if (mkdir(child, 0700) != 0)
                abort();
            materialise(tree, e->inode, child);
            continue;
        }
        const struct inode *c = &tree->content[e->inode];
        int fd = open(child, O_WRONLY | O_CREAT | O_EXCL, 0600);
        if (fd < 0 || write(fd, c->data, (size_t)c->bytes) != c->bytes || close(fd) != 0)
            abort();
    }
}

static void put_tree(const struct tree *tree, const char *folder)
{
    sys_remove_tree(folder);
    if (mkdir(folder, 0700) != 0)
        abort();
    materialise(tree, ROOT, folder);
}

/* --- all states ------------------------------------------------------------------ */

struct seen {
    u64 *slot;
    i64 capacity, n;
};

/* True when the value is new. */
static bool remember(struct seen *s, u64 value)
{
    value += value == 0;
    if (2 * s->n >= s->capacity) {
        struct seen bigger = { .capacity = s->capacity ? 2 * s->capacity : 1024 };
        bigger.slot = calloc((size_t)bigger.capacity, 8);
        for (i64 i = 0; i < s->capacity; i++)
            if (s->slot[i])
                remember(&bigger, s->slot[i]);
        free(s->slot);
        *s = bigger;
    }
    u64 i = value % (u64)s->capacity;
    for (; s->slot[i]; i = (i + 1) % (u64)s->capacity)
        if (s->slot[i] == value)
            return false;
    s->slot[i] = value;
    s->n++;
    return true;
}

/* The next combination, like the digits of a number; false after the last. */
static bool next_fates(const struct crash_trace *t, i64 crash, u8 *fate)
{
    for (i64 i = 0; i < crash; i++) {
        int choices = fates(&t->op[i], crash);
        if (choices == 1)
            continue;
        fate[i] = (u8)((fate[i] + 1) % choices);
        if (fate[i] != 0)
            return true;
    }
    return false;
}

static void random_fates(const struct crash_trace *t, i64 crash, u8 *fate, struct rng *r, u64 *at)
{
    for (i64 i = 0; i < crash; i++) {
        int choices = fates(&t->op[i], crash);
        fate[i] = choices == 1 ? DONE : (u8)(rng_u64(r, (*at)++) % (u64)choices);
    }
}

static i64 count_states(const struct crash_trace *t, i64 crash, i64 limit)
{
    i64 states = 1;
    for (i64 i = 0; i < crash && states <= limit; i++)
        states *= fates(&t->op[i], crash);
    return states;
}

struct walk {
    const struct crash_trace *t;
    const char *scratch;
    crash_check check;
    void *context;
    struct crash_stats *stats;
    struct seen seen;
};

static void visit(struct walk *w, i64 crash, const u8 *fate)
{
    struct tree tree;
    i64 mark = crash_mark_at(w->t, crash);
    build(w->t, crash, fate, &tree);
    w->stats->states++;
    if (remember(&w->seen, hash_folder(&tree, ROOT) + (u64)mark)) {
        w->stats->distinct++;
        put_tree(&tree, w->scratch);
        if (w->check(w->context, w->scratch, mark) != 0 && w->stats->violations++ == 0)
            snprintf(w->stats->first, sizeof w->stats->first, "crash before operation %lld of %lld",
                     (long long)crash, (long long)w->t->n);
    }
    drop_tree(w->t, &tree);
}

void crash_enumerate(const struct crash_trace *t, const char *scratch, i64 per_point, u64 seed,
                     crash_check check, void *context, struct crash_stats *stats)
{
    struct walk w = { t, scratch, check, context, stats, { 0 } };
    struct rng r = { seed, 0x6372617368 };
    u64 at = 0;
    u8 *fate = malloc((size_t)t->n + 1);
    find_durability(t);
    for (i64 crash = 0; crash <= t->n; crash++) {
        stats->points++;
        for (i64 i = 0; i < crash; i++)
            fate[i] = fates(&t->op[i], crash) == 1 ? DONE : ABSENT;
        if (count_states(t, crash, per_point) <= per_point) {
            do
                visit(&w, crash, fate);
            while (next_fates(t, crash, fate));
            continue;
        }
        visit(&w, crash, fate); /* nothing of what was pending, all of it, and some */
        memset(fate, DONE, (size_t)crash);
        visit(&w, crash, fate);
        for (i64 i = 2; i < per_point; i++) {
            random_fates(t, crash, fate, &r, &at);
            visit(&w, crash, fate);
        }
    }
    free(fate);
    free(w.seen.slot);
}

i64 crash_once(const struct crash_trace *t, const char *folder, u64 seed)
{
    struct rng r = { seed, 0x6f6e6365 };
    struct tree tree;
    u64 at = 0;
    i64 crash = (i64)(rng_u64(&r, at++) % (u64)(t->n + 1));
    u8 *fate = malloc((size_t)t->n + 1);
    find_durability(t);
    random_fates(t, crash, fate, &r, &at);
    build(t, crash, fate, &tree);
    put_tree(&tree, folder);
    drop_tree(t, &tree);
    free(fate);
    return crash_mark_at(t, crash);
}

const char *scratch_folder(void)
{
    static char path[64];
    snprintf(path, sizeof path, "%s/headway-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    return mkdtemp(path) ? path : NULL;
}

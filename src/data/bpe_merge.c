#include "data/bpe_merge.h"

#include "base/err.h"

#include <string.h>

enum {
    SHORT = 40, /* symbols; measured: above, the heap is quicker than the scan */
    NO_RANK = INT32_MAX,
};

struct bpe_slot {
    i32 left, right; /* left is -1 in an empty slot */
    i32 rank, result;
};

/* --- the rules ---------------------------------------------------------------------- */

static inline u64 pair_hash(i32 left, i32 right)
{
    u64 h = ((u64)(u32)left << 32 | (u32)right) * 0x9E3779B97F4A7C15u; /* 2^64 / phi */
    return h ^ h >> 32;
}

static inline struct bpe_slot *slot_of(const struct bpe_table *t, i32 left, i32 right)
{
    u64 i = pair_hash(left, right) & t->mask;
    while (t->slots[i].left >= 0 &&
           (t->slots[i].left != left || t->slots[i].right != right))
        i = (i + 1) & t->mask;
    return &t->slots[i];
}

void bpe_table_init(struct bpe_table *t, struct arena *a, const struct bpe_rule *rules,
                    i64 count)
{
    u64 slots = 16;
    while (slots < (u64)count * 2)
        slots *= 2;
    t->mask = slots - 1;
    t->slots = ARENA_ARRAY(a, struct bpe_slot, slots);
    for (u64 i = 0; i < slots; i++)
        t->slots[i] = (struct bpe_slot){ -1, -1, NO_RANK, -1 };
    for (i64 rank = 0; rank < count; rank++) {
        const struct bpe_rule *r = &rules[rank];
        *slot_of(t, r->left, r->right) =
            (struct bpe_slot){ r->left, r->right, (i32)rank, r->result };
    }
}

i32 bpe_table_rank(const struct bpe_table *t, i32 left, i32 right)
{
    return slot_of(t, left, right)->rank;
}

/* --- short pieces ------------------------------------------------------------------- */

static i64 merge_short(const struct bpe_table *t, i32 *ids, i64 n)
{
    i32 rank[SHORT], result[SHORT];
    for (i64 i = 0; i + 1 < n; i++) {
        const struct bpe_slot *s = slot_of(t, ids[i], ids[i + 1]);
        rank[i] = s->rank;
        result[i] = s->result;
    }
    while (n > 1) {
        i64 best = 0;
        for (i64 i = 1; i + 1 < n; i++)
            best = rank[i] < rank[best] ? i : best;
        if (rank[best] == NO_RANK)
            break;
        ids[best] = result[best];
        n--;
        for (i64 i = best + 1; i < n; i++) {
            ids[i] = ids[i + 1];
            rank[i - 1] = rank[i];
            result[i - 1] = result[i];
        }
        for (i64 i = i64_max(best - 1, 0); i <= best && i + 1 < n; i++) {
            const struct bpe_slot *s = slot_of(t, ids[i], ids[i + 1]);
            rank[i] = s->rank;
            result[i] = s->result;
        }
    }
    return n;
}

/* --- long pieces -------------------------------------------------------------------- */

struct node {
    i32 id; /* -1 once swallowed by the node before */
    i32 before, after;
    i32 rank, result; /* of the pair (this, after) */
};

/* A heap entry is rank and position in one number: the smallest goes first. */
static void sift_down(u64 *heap, i64 n, i64 i)
{
    u64 item = heap[i];
    for (i64 child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= item)
            break;
        heap[i] = heap[child];
    }
    heap[i] = item;
}

static void heap_push(u64 *heap, i64 *n, u64 item)
{
    i64 i = (*n)++;
    for (i64 parent; i > 0 && heap[parent = (i - 1) / 2] > item; i = parent)
        heap[i] = heap[parent];
    heap[i] = item;
}

static void rate(const struct bpe_table *t, struct node *nodes, i32 i)
{
    struct node *node = &nodes[i];
    node->rank = NO_RANK;
    if (node->after < 0)
        return;
    const struct bpe_slot *s = slot_of(t, node->id, nodes[node->after].id);
    node->rank = s->rank;
    node->result = s->result;
}

static u64 heap_item(const struct node *nodes, i32 i)
{
    return (u64)(u32)nodes[i].rank << 32 | (u32)i;
}

static i64 link_nodes(const struct bpe_table *t, struct node *nodes, u64 *heap,
                      const i32 *ids, i64 n)
{
    i64 waiting = 0;
    for (i64 i = 0; i < n; i++)
        nodes[i] = (struct node){ ids[i], (i32)i - 1, i + 1 < n ? (i32)i + 1 : -1, 0, 0 };
    for (i32 i = 0; i < n; i++) {
        rate(t, nodes, i);
        if (nodes[i].rank != NO_RANK)
            heap[waiting++] = heap_item(nodes, i);
    }
    for (i64 i = waiting / 2 - 1; i >= 0; i--)
        sift_down(heap, waiting, i);
    return waiting;
}

/* Node i swallows the one after it. */
static void swallow(struct node *nodes, i32 i)
{
    struct node *node = &nodes[i], *gone = &nodes[node->after];
    node->id = node->result;
    node->after = gone->after;
    if (node->after >= 0)
        nodes[node->after].before = i;
    gone->id = -1;
    gone->rank = NO_RANK;
}

static int merge_long(const struct bpe_table *t, struct bpe_scratch *s, i32 *ids, i64 *count)
{
    i64 n = *count, out = 0;
    s->nodes.bytes = s->heap.bytes = 0;
    TRY(buffer_reserve(&s->nodes, n * (i64)sizeof(struct node)));
    /* One entry per pair at first; each of fewer than n merges takes one, adds two. */
    TRY(buffer_reserve(&s->heap, 2 * n * (i64)sizeof(u64)));
    struct node *nodes = (struct node *)(void *)s->nodes.data;
    u64 *heap = (u64 *)(void *)s->heap.data;
    i64 waiting = link_nodes(t, nodes, heap, ids, n);
    while (waiting > 0) {
        u64 item = heap[0];
        heap[0] = heap[--waiting];
        sift_down(heap, waiting, 0);
        i32 i = (i32)(u32)item;
        if (nodes[i].rank != (i32)(item >> 32))
            continue; /* the pair is not there any more */
        swallow(nodes, i);
        for (i32 k = nodes[i].before >= 0 ? nodes[i].before : i; k >= 0;
             k = k == i ? -1 : i) {
            rate(t, nodes, k);
            if (nodes[k].rank != NO_RANK)
                heap_push(heap, &waiting, heap_item(nodes, k));
        }
    }
    for (i32 i = 0; i >= 0; i = nodes[i].after)
        ids[out++] = nodes[i].id;
    *count = out;
    return OK;
}

int bpe_merge(const struct bpe_table *t, struct bpe_scratch *s, i32 *ids, i64 *count)
{
    assert(*count <= INT32_MAX);
    if (*count > SHORT)
        return merge_long(t, s, ids, count);
    *count = merge_short(t, ids, *count);
    return OK;
}

void bpe_scratch_fini(struct bpe_scratch *s)
{
    buffer_fini(&s->nodes);
    buffer_fini(&s->heap);
}

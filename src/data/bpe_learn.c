#include "data/bpe_learn.h"

#include "base/err.h"
#include "base/sys.h"

#include <string.h>

enum { WHERE_CLASSES = 31, SMALLEST_WHERE = 4 };

/* Two neighbouring symbols, how often they occur, and in which words. The list may name a
 * word twice, or one that has lost the pair since; looking again does no harm. */
struct pair {
    i32 left, right;
    i64 count;
    u32 *where;
    u32 where_count;
    u8 where_class; /* room for SMALLEST_WHERE << class */
};

struct entry { /* of the heap; the count may have sunk since */
    i64 count;
    u32 pair;
};

struct learner {
    const struct bpe_learn *in;
    struct arena arena;
    u32 *free_where[WHERE_CLASSES]; /* lists of lists given back, linked through the first */
    i32 *symbols;                   /* all words, one behind the other */
    struct symbols_of {
        i64 begin, count;
        i32 length;
    } *words;
    struct buffer pairs; /* of struct pair */
    i64 pair_count;
    u32 *slots; /* open addressing: 1 + index of a pair; 0 is empty */
    i64 capacity;
    struct buffer heap; /* of struct entry */
    i64 heap_count;
};

static struct pair *pair_at(const struct learner *l, u32 i)
{
    return (struct pair *)(void *)l->pairs.data + i;
}

/* --- where a pair occurs ------------------------------------------------------------ */

static u32 *where_take(struct learner *l, int class)
{
    u32 *list = l->free_where[class];
    if (!list)
        return arena_alloc(&l->arena, (i64)sizeof(u32) * ((i64)SMALLEST_WHERE << class));
    memcpy(&l->free_where[class], list, sizeof(u32 *)); /* the next one's address */
    return list;
}

static void where_give_back(struct learner *l, struct pair *p)
{
    if (!p->where)
        return;
    memcpy(p->where, &l->free_where[p->where_class], sizeof(u32 *));
    l->free_where[p->where_class] = p->where;
    p->where = NULL;
    p->where_count = 0;
}

static void where_add(struct learner *l, struct pair *p, u32 word)
{
    if (p->where_count > 0 && p->where[p->where_count - 1] == word)
        return;
    if (!p->where) {
        p->where_class = 0;
        p->where = where_take(l, 0);
    } else if (p->where_count == (u32)SMALLEST_WHERE << p->where_class) {
        struct pair old = *p;
        p->where = where_take(l, ++p->where_class);
        memcpy(p->where, old.where, old.where_count * sizeof *p->where);
        where_give_back(l, &old);
    }
    p->where[p->where_count++] = word;
}

/* --- the table of pairs ------------------------------------------------------------- */

static u32 *slot_of(const struct learner *l, i32 left, i32 right)
{
    u64 hash = ((u64)(u32)left << 32 | (u32)right) * 0x9E3779B97F4A7C15u; /* 2^64 / phi */
    u64 mask = (u64)l->capacity - 1;
    for (u64 i = (hash ^ hash >> 32) & mask;; i = (i + 1) & mask) {
        u32 *slot = &l->slots[i];
        if (!*slot)
            return slot;
        const struct pair *p = pair_at(l, *slot - 1);
        if (p->left == left && p->right == right)
            return slot;
    }
}

static int grow_slots(struct learner *l)
{
    i64 capacity = i64_max(1 << 16, 2 * l->capacity);
    u32 *slots = sys_alloc(capacity * (i64)sizeof *slots, 64);
    if (!slots || capacity > UINT32_MAX / 2) {
        sys_free(slots);
        return err_set(ERR_LIMIT, "no memory for %lld pairs of symbols; train on less text",
                       (long long)l->pair_count);
    }
    memset(slots, 0, (size_t)capacity * sizeof *slots);
    sys_free(l->slots);
    l->slots = slots;
    l->capacity = capacity;
    for (u32 i = 0; i < l->pair_count; i++)
        *slot_of(l, pair_at(l, i)->left, pair_at(l, i)->right) = i + 1;
    return OK;
}

/* The pair's index; a new one counts 0. */
static int pair_of(struct learner *l, i32 left, i32 right, u32 *out)
{
    if (2 * l->pair_count >= l->capacity)
        TRY(grow_slots(l));
    u32 *slot = slot_of(l, left, right);
    if (!*slot) {
        const struct pair fresh = { .left = left, .right = right };
        TRY(buffer_add(&l->pairs, &fresh, (i64)sizeof fresh));
        *slot = (u32)++l->pair_count;
    }
    *out = *slot - 1;
    return OK;
}

static int count_pair(struct learner *l, i32 left, i32 right, i64 change, u32 word)
{
    u32 i;
    TRY(pair_of(l, left, right, &i));
    struct pair *p = pair_at(l, i);
    p->count += change;
    if (change > 0)
        where_add(l, p, word);
    return OK;
}

/* --- the heap ----------------------------------------------------------------------- */

/* More frequent first, then smaller ids. */
static bool goes_first(const struct learner *l, struct entry a, struct entry b)
{
    if (a.count != b.count)
        return a.count > b.count;
    const struct pair *p = pair_at(l, a.pair), *q = pair_at(l, b.pair);
    return p->left != q->left ? p->left < q->left : p->right < q->right;
}

static int heap_push(struct learner *l, struct entry item)
{
    TRY(buffer_add(&l->heap, &item, (i64)sizeof item));
    struct entry *heap = (struct entry *)(void *)l->heap.data;
    i64 i = l->heap_count++;
    for (i64 parent; i > 0 && goes_first(l, item, heap[parent = (i - 1) / 2]); i = parent)
        heap[i] = heap[parent];
    heap[i] = item;
    return OK;
}

static struct entry heap_pop(struct learner *l)
{
    struct entry *heap = (struct entry *)(void *)l->heap.data;
    struct entry top = heap[0], item = heap[--l->heap_count];
    l->heap.bytes -= (i64)sizeof item;
    i64 i = 0, n = l->heap_count;
    for (i64 child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && goes_first(l, heap[child + 1], heap[child]))
            child++;
        if (!goes_first(l, heap[child], item))
            break;
        heap[i] = heap[child];
    }
    heap[i] = item;
    return top;
}

/* Pairs from `first` on are new: they enter the heap with their final count. */
static int push_new(struct learner *l, u32 first)
{
    for (u32 i = first; i < l->pair_count; i++) {
        i64 count = pair_at(l, i)->count;
        if (count >= l->in->min_count)
            TRY(heap_push(l, (struct entry){ count, i }));
        else
            where_give_back(l, pair_at(l, i)); /* counts of old pairs only sink */
    }
    return OK;
}

/* --- learning ----------------------------------------------------------------------- */

static int fill_symbols(struct learner *l)
{
    const struct word_table *t = l->in->words;
    i64 total = 0, n = 0;
    if (t->count >= UINT32_MAX)
        return err_set(ERR_LIMIT, "%lld different words are too many; train on less text",
                       (long long)t->count);
    for (i64 i = 0; i < t->capacity; i++)
        total += t->slots[i].bytes ? t->slots[i].length : 0;
    l->words = sys_alloc(i64_max(1, t->count * (i64)sizeof *l->words), 64);
    l->symbols = sys_alloc(i64_max(1, total * (i64)sizeof *l->symbols), 64);
    if (!l->words || !l->symbols)
        return err_set(ERR_LIMIT, "no memory for %lld different words; train on less text",
                       (long long)t->count);
    total = 0;
    for (i64 i = 0; i < t->capacity; i++) {
        const struct word *w = &t->slots[i];
        if (!w->bytes)
            continue;
        if (w->length > INT32_MAX)
            return err_set(ERR_LIMIT, "a word of %lld bytes is too long to learn from",
                           (long long)w->length);
        l->words[n++] = (struct symbols_of){ total, w->count, (i32)w->length };
        for (i64 k = 0; k < w->length; k++)
            l->symbols[total++] = l->in->byte_id[w->bytes[k]];
    }
    return OK;
}

static int count_all(struct learner *l)
{
    for (u32 w = 0; w < l->in->words->count; w++) {
        const struct symbols_of *word = &l->words[w];
        const i32 *s = l->symbols + word->begin;
        for (i32 i = 0; i + 1 < word->length; i++)
            TRY(count_pair(l, s[i], s[i + 1], word->count, w));
    }
    return push_new(l, 0);
}

/* Replaces the pair in one word, from the left; the neighbours' pairs change with it. */
static int merge_in_word(struct learner *l, const struct bpe_rule *rule, u32 w)
{
    struct symbols_of *word = &l->words[w];
    i32 *s = l->symbols + word->begin, out = 0;
    for (i32 i = 0; i < word->length; i++) {
        if (s[i] != rule->left || i + 1 == word->length || s[i + 1] != rule->right) {
            s[out++] = s[i];
            continue;
        }
        i++;
        if (out > 0) {
            TRY(count_pair(l, s[out - 1], rule->left, -word->count, w));
            TRY(count_pair(l, s[out - 1], rule->result, word->count, w));
        }
        if (i + 1 < word->length) {
            TRY(count_pair(l, rule->right, s[i + 1], -word->count, w));
            TRY(count_pair(l, rule->result, s[i + 1], word->count, w));
        }
        s[out++] = rule->result;
    }
    word->length = out;
    return OK;
}

static int merge_everywhere(struct learner *l, u32 pair, const struct bpe_rule *rule)
{
    u32 first_new = (u32)l->pair_count, count = pair_at(l, pair)->where_count;
    const u32 *where = pair_at(l, pair)->where; /* stays put while pairs are added */
    /* Taken away first: the pair itself may be counted down, never listed again. */
    struct pair mine = *pair_at(l, pair);
    pair_at(l, pair)->where = NULL;
    pair_at(l, pair)->where_count = 0;
    for (u32 i = 0; i < count; i++)
        TRY(merge_in_word(l, rule, where[i]));
    where_give_back(l, &mine);
    where_give_back(l, pair_at(l, pair));
    return push_new(l, first_new);
}

static int learn(struct learner *l)
{
    const struct bpe_learn *in = l->in;
    i32 next = in->first_id;
    while (next < in->first_id + in->new_tokens && l->heap_count > 0) {
        struct entry top = heap_pop(l);
        const struct pair *p = pair_at(l, top.pair);
        if (top.count != p->count) {
            if (p->count >= in->min_count)
                TRY(heap_push(l, (struct entry){ p->count, top.pair }));
            continue;
        }
        struct bpe_rule rule = { p->left, p->right, 0 };
        TRY(rule.result = in->learnt(in->context, p->left, p->right, next));
        next += rule.result == next;
        TRY(merge_everywhere(l, top.pair, &rule));
    }
    return OK;
}

int bpe_learn(const struct bpe_learn *in)
{
    struct learner l = { .in = in };
    int rc;
    arena_init(&l.arena);
    TRY_TO(done, fill_symbols(&l));
    TRY_TO(done, count_all(&l));
    rc = learn(&l);
done:
    buffer_fini(&l.pairs);
    buffer_fini(&l.heap);
    sys_free(l.slots);
    sys_free(l.symbols);
    sys_free(l.words);
    arena_fini(&l.arena);
    return rc;
}

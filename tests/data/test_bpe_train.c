#include "test.h"

#include "base/json.h"
#include "base/rng.h"
#include "base/text.h"
#include "data/byte_alphabet.h"
#include "data/tokenizer_impl.h"
#include "random_text.h"
#include "small_tokenizer.h"

/* The merges of a tokenizer as "a b|c d|...", read from what it saves. */
static void check_merges(const struct tokenizer *t, const char *expected)
{
    struct json out;
    struct text line = { 0 };
    json_t *root;
    const json_t *item;
    size_t i;
    json_writer_init(&out);
    tokenizer_write(t, &out);
    CHECK_OK(json_parse(out.out.data, out.out.length, "saved", &root));
    json_array_foreach(json_object_get(json_object_get(root, "model"), "merges"), i, item)
        text_printf(&line, "%s%s %s", i ? "|" : "", json_string_value(json_array_get(item, 0)),
                    json_string_value(json_array_get(item, 1)));
    CHECK_STR(line.data, expected);
    json_decref(root);
    text_fini(&line);
    json_writer_fini(&out);
}

/* Recorded from tokenizers 0.23.3: BpeTrainer(vocab_size=320, min_frequency=2,
 * special_tokens=["<|endoftext|>"], initial_alphabet=ByteLevel.alphabet()) on small_text. */
TEST(merges_are_those_of_hugging_face)
{
    struct tokenizer *t = train_small("gpt2", 320, 1);
    CHECK_EQ(tokenizer_size(t), 311); /* nothing else occurs twice */
    CHECK_EQ(tokenizer_find(t, "<|endoftext|>"), 0);
    CHECK_EQ(tokenizer_find(t, "!"), 1);
    check_merges(t, "a a|Ġ w|Ġ t|a s|Ġ i|aa aa|h e|o f|Ġ of|Ġw as|Ġt he|Ġi t|Ġ Ġ|e s|r e|i n|Ġ b|"
                    "aaaa aaaa|in g|e f|l i|Ġ a|Ġ d|Ġ e|Ġ s|c h|e r|e as|g e|h ing|i m|n es|o n|"
                    "o re|o ch|p och|t hing|u s|Ã ©|Ċ ĠĠ|Ġ 1|Ġ h|Ġ us|Ġw e|Ġt im|Ġi n|Ġb ef|Ġa ge|"
                    "Ġe poch|Ġs eas|nes s|Ġtim es|Ġbef ore|Ġseas on");
    tokenizer_free(t);
    t = train_small("llama3", 320, 1);
    check_merges(t, "a a|Ġ w|Ġ t|a s|Ġ i|aa aa|h e|o f|Ġ of|Ġw as|Ġt he|Ġi t|Ġ Ġ|e s|r e|i n|Ġ b|"
                    "aaaa aaaa|in g|e f|l i|Ġ a|Ġ d|Ġ e|Ġ s|. Ċ|c h|e r|e as|g e|h ing|i m|n es|"
                    "o n|o re|o ch|p och|t hing|u s|Ã ©|Ġ h|Ġ us|Ġw e|Ġt im|Ġi n|ĠĠ Ġ|Ġb ef|Ġa ge|"
                    "Ġe poch|Ġs eas|nes s|Ġtim es|Ġbef ore|Ġseas on");
    tokenizer_free(t);
}

enum { DOCUMENTS = 150 };

/* Random documents, some of them long enough to be cut for the threads. */
static void make_documents(struct buffer docs[DOCUMENTS])
{
    struct dice d = { { 11, 1 }, 0 };
    struct buffer line = { 0 };
    for (int i = 0; i < DOCUMENTS; i++)
        for (int k = i == 7 ? 5000 : 1 + (int)throw(&d, 30); k > 0; k--) {
            random_text(&d, &line);
            CHECK_OK(buffer_add(&docs[i], line.data, line.bytes));
            CHECK_OK(buffer_add(&docs[i], "word\nnext \xFF", throw(&d, 2) ? 5 : 11));
        }
    buffer_fini(&line);
}

static struct tokenizer *train_documents(struct buffer docs[DOCUMENTS], int threads, int step)
{
    struct bpe_train_options o = { .vocab_size = 600, .min_count = 1, .pattern = "qwen2" };
    struct bpe_trainer *trainer;
    struct tokenizer *t;
    struct pool *pool;
    CHECK_OK(pool_new(&pool, threads, false));
    CHECK_OK(bpe_trainer_new(&trainer, &o, pool));
    for (int i = 0, at = 0; i < DOCUMENTS; i++, at = (at + step) % DOCUMENTS)
        CHECK_OK(bpe_trainer_add(trainer, docs[at].data, docs[at].bytes));
    CHECK_OK(bpe_trainer_finish(trainer, &t));
    bpe_trainer_free(trainer);
    pool_free(pool);
    return t;
}

TEST(threads_and_order_do_not_change_what_is_learnt)
{
    static struct buffer docs[DOCUMENTS];
    make_documents(docs);
    struct tokenizer *one = train_documents(docs, 1, 1), *again = train_documents(docs, 1, 1);
    struct tokenizer *two = train_documents(docs, 2, 1), *mixed = train_documents(docs, 4, 37);
    CHECK_EQ(tokenizer_size(one), 600);
    CHECK_STR(tokenizer_hash(again), tokenizer_hash(one));
    CHECK_STR(tokenizer_hash(two), tokenizer_hash(one));
    CHECK_STR(tokenizer_hash(mixed), tokenizer_hash(one));
    tokenizer_free(one);
    tokenizer_free(again);
    tokenizer_free(two);
    tokenizer_free(mixed);
    for (int i = 0; i < DOCUMENTS; i++)
        buffer_fini(&docs[i]);
}

/* A long document is cut for the threads where no piece is cut. */
TEST(cutting_a_document_changes_nothing)
{
    struct buffer text = { 0 };
    struct dice d = { { 13, 1 }, 0 };
    static const char *const endings[] = { "a\nb", "a \nb", "a\n\nb", "a\n b", "a\r\nb", ".\n'll" };
    for (int i = 0; i < 100000; i++) {
        const char *end = endings[throw(&d, COUNT_OF(endings))];
        CHECK_OK(buffer_add(&text, end, (i64)strlen(end)));
    }
    struct bpe_train_options o = { .vocab_size = 280, .min_count = 1, .pattern = "gpt2" };
    struct tokenizer *t[2];
    for (int k = 0; k < 2; k++) {
        struct bpe_trainer *trainer;
        struct pool *pool;
        CHECK_OK(pool_new(&pool, 1, false));
        CHECK_OK(bpe_trainer_new(&trainer, &o, pool));
        if (k == 0)
            CHECK_OK(bpe_trainer_add(trainer, text.data, text.bytes));
        for (i64 at = 0, end; k == 1 && at < text.bytes; at = end) {
            /* cut by hand, at every place where both neighbours are letters */
            for (end = at + 2; end < text.bytes; end++)
                if (text.data[end - 1] == '\n' && text.data[end] == 'b' &&
                    text.data[end - 2] == 'a')
                    break;
            CHECK_OK(bpe_trainer_add(trainer, text.data + at, end - at));
        }
        CHECK_OK(bpe_trainer_finish(trainer, &t[k]));
        bpe_trainer_free(trainer);
        pool_free(pool);
    }
    CHECK_STR(tokenizer_hash(t[0]), tokenizer_hash(t[1]));
    tokenizer_free(t[0]);
    tokenizer_free(t[1]);
    buffer_fini(&text);
}

/* "EOS" as a special token and as a word of the text are one entry, as Hugging Face has it. */
TEST(a_merge_may_make_a_special_token)
{
    const char *specials[] = { "EOS" };
    struct bpe_train_options o = { .vocab_size = 260, .min_count = 1, .pattern = "gpt2",
                                   .specials = specials, .special_count = 1 };
    struct bpe_trainer *trainer;
    struct tokenizer *t;
    struct pool *pool;
    CHECK_OK(pool_new(&pool, 1, false));
    CHECK_OK(bpe_trainer_new(&trainer, &o, pool));
    CHECK_OK(bpe_trainer_add(trainer, "EOS EOSX", 8));
    CHECK_OK(bpe_trainer_finish(trainer, &t));
    check_merges(t, "E O|EO S|EOS X|Ġ EOSX");
    CHECK_EQ(tokenizer_size(t), 260);
    tokenizer_free(t);
    bpe_trainer_free(trainer);
    pool_free(pool);
}

TEST(wishes_that_cannot_be_met_are_refused)
{
    struct bpe_train_options o = { .vocab_size = 255, .pattern = "gpt2" };
    const char *twice[] = { "<s>", "<s>" }, *one[] = { "s" };
    struct bpe_trainer *trainer;
    struct pool *pool;
    CHECK_OK(pool_new(&pool, 1, false));
    CHECK_FAILS(bpe_trainer_new(&trainer, &o, pool), ERR_USAGE, "255 tokens cannot be");
    o.vocab_size = 300;
    o.pattern = "gpt5";
    CHECK_FAILS(bpe_trainer_new(&trainer, &o, pool), ERR_USAGE, "no pre-tokenizer pattern gpt5");
    o.pattern = "gpt2";
    o.specials = twice;
    o.special_count = 2;
    CHECK_FAILS(bpe_trainer_new(&trainer, &o, pool), ERR_USAGE, "given twice");
    o.specials = one;
    o.special_count = 1;
    CHECK_FAILS(bpe_trainer_new(&trainer, &o, pool), ERR_USAGE, "two bytes");
    pool_free(pool);
}

TEST(no_text_at_all_gives_the_bytes)
{
    struct bpe_train_options o = { .vocab_size = 1000, .pattern = "llama3" };
    struct bpe_trainer *trainer;
    struct tokenizer *t;
    struct pool *pool;
    CHECK_OK(pool_new(&pool, 2, false));
    CHECK_OK(bpe_trainer_new(&trainer, &o, pool));
    CHECK_OK(bpe_trainer_finish(trainer, &t));
    CHECK_EQ(tokenizer_size(t), 256);
    tokenizer_free(t);
    bpe_trainer_free(trainer);
    pool_free(pool);
}

TEST_MAIN(ONE(merges_are_those_of_hugging_face),
          ONE(threads_and_order_do_not_change_what_is_learnt),
          ONE(cutting_a_document_changes_nothing), ONE(a_merge_may_make_a_special_token),
          ONE(wishes_that_cannot_be_met_are_refused), ONE(no_text_at_all_gives_the_bytes))

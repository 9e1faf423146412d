"""Text prepared for a corpus: cleaned, without stop words; `clean` composes the functions."""

import unicodedata
from collections.abc import Callable, Iterable
from html.parser import HTMLParser

import regex

FORMS = ("NFC", "NFD", "NFKC", "NFKD")
LINE_BREAK = regex.compile(r"\r\n|[\r\v\f\x1c-\x1f\x85\u2028\u2029]")
# Controls, and format characters that show nothing: a few of Unicode's Cf are signs one can see,
# such as the Arabic end of verse. Kept are the two joiners and the Mongolian vowel separator.
INVISIBLE = regex.compile(
    r"(?V1)[[\p{Cc}--[\t\n]]||[[\p{Cf}&&\p{Default_Ignorable_Code_Point}]--[\u200c\u200d\u180e]]"
    r"||[\ufff9-\ufffb]]"
)
SPACE = r"[^\S\n]"
WORD = r"[\p{L}\p{M}\p{N}_]++(?:['’-][\p{L}\p{M}\p{N}_]++)*+"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


HIDDEN_TAGS = _words("script style")
BLOCK_TAGS = _words(
    """address article aside blockquote body br button caption center dd details dialog dir div dl
    dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 head header hr html legend li main
    menu nav ol option p pre search section select summary table tbody td textarea tfoot th thead
    title tr ul"""
)
ENGLISH_STOP_WORDS = _words(
    """a an the this that these those and or but nor so if because as until while though although
    than whether of at by for with without about against between among into through during before
    after above below to from up down in out on off over under upon within toward towards again
    then once here there where when why how what which who whom whose i me my mine myself we us our
    ours ourselves you your yours yourself yourselves he him his himself she her hers herself it its
    itself they them their theirs themselves am is are was were be been being have has had having
    do does did doing done will would shall should can could may might must ought cannot not no
    all any both each every few many more most much other another some such only own same too very
    just also now ever either neither i'm i've i'll i'd you're you've you'll you'd he's he'll he'd
    she's she'll she'd it's it'll it'd we're we've we'll we'd they're they've they'll they'd that's
    there's here's what's who's where's how's let's isn't aren't wasn't weren't haven't hasn't
    hadn't don't doesn't didn't won't wouldn't shan't shouldn't can't couldn't mightn't mustn't"""
)
CHINESE_STOP_WORDS = _words(
    """的 地 得 了 着 过 和 与 及 以及 或 或者 并 并且 而 而且 而是 但 但是 不过 然而 因为 由于
    所以 因此 因而 如果 若 假如 虽然 尽管 即使 只要 只有 无论 不管 那么 于是 然后 以便 还是 不仅
    是 在 有 为 以 从 自 由 于 对 对于 关于 向 往 到 把 被 让 给 跟 同 比 按 按照 根据 通过 除了
    也 都 就 才 又 再 还 很 太 更 最 已 已经 正在 曾 将 要 会 能 可以 应该 不 没 没有 别 只 仅 便
    却 我 你 您 他 她 它 我们 你们 他们 她们 它们 咱们 自己 这 那 这个 那个 这些 那些 这里 那里
    这样 那样 此 其 该 各 每 某 什么 谁 哪 哪里 哪些 怎么 怎样 如何 为什么 多少 几 吗 呢 吧 啊 呀
    嘛 啦 之 所 者 等 等等 个 一个 一些"""
)
STOP_WORDS = {"en": ENGLISH_STOP_WORDS, "zh": CHINESE_STOP_WORDS}


def normalize_unicode(text: str, form: str = "NFC") -> str:
    r"""One spelling for characters that Unicode holds to be the same.

    NFC composes (e and an accent become é), NFD takes apart; NFKC and NFKD also replace look-alikes
    such as ligatures and full-width letters, which loses distinctions: x² becomes x2.

    Raises: ValueError — a form that Unicode does not define.
    Source: Unicode Standard Annex 15.

    >>> normalize_unicode("Cafe\u0301 x²"), normalize_unicode("Cafe\u0301 x²", "NFKC")
    ('Café x²', 'Café x2')
    """
    if form not in FORMS:
        raise ValueError(
            f"normalize_unicode: expected a form of {', '.join(FORMS)}, got {form!r}; "
            "NFC changes no meaning"
        )
    return unicodedata.normalize(form, text)  # type: ignore[arg-type]


class _TextOfHTML(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.hidden = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.hidden = self.hidden or tag in HIDDEN_TAGS
        self.handle_startendtag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        self.hidden = self.hidden and tag not in HIDDEN_TAGS
        self.handle_startendtag(tag, None)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        if tag in BLOCK_TAGS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.pieces.append(data)


def strip_html(text: str) -> str:
    r"""The text of an HTML page or fragment, however malformed.

    Tags, comments, declarations, scripts and styles go; entities become their characters. The tags
    of blocks, of table cells and `<br>` become line breaks, other tags nothing. Not idempotent:
    of `&amp;lt;` is left `&lt;`, of that `<`. Hostile markup takes html.parser quadratic time:
    60 kB of unclosed tags 20 s in Python 3.11.7.

    >>> strip_html("<p>Fish &amp; <b>chips</b></p><script>x < y</script><p>Tea<br/>Milk")
    '\nFish & chips\n\nTea\nMilk'
    """
    # subtle: html.parser raises at "<![" and a word it does not know, and int() at numbers of more
    # than 4300 digits. HTML reads the first as a comment, the second as U+FFFD, and so do these.
    text = text.replace("<![", "<! [")
    text = regex.sub("&#[0-9]{4000,}", "&#0", text)
    parser = _TextOfHTML()
    parser.feed(text)
    parser.close()
    return "".join(parser.pieces)


def remove_control(text: str) -> str:
    r"""The text without invisible characters, its line breaks as "\n".

    Dropped: Unicode's controls (Cc) but for "\n" and "\t", and of its format characters (Cf) those
    that nobody sees: soft hyphen, zero-width space, byte order mark, marks of direction, tags (the
    flag of Scotland becomes a black one). "\r\n", "\r", form feed and other control characters that
    end a line become "\n", or words would run together. Kept: the zero-width joiner and non-joiner,
    which make emoji of several people and spell Persian and Indic words, also where they do
    nothing; the Mongolian vowel separator; variation selectors, which are marks.

    >>> remove_control("\ufeffin\xadvis\u200bible\x00\r\nنمی\u200cخواهم")
    'invisible\nنمی\u200cخواهم'
    """
    return INVISIBLE.sub("", LINE_BREAK.sub("\n", text))


def normalize_whitespace(text: str) -> str:
    r"""Lines that end in "\n", words one space apart, paragraphs at most one empty line apart.

    Any run of spaces, tabs, no-break and ideographic spaces becomes one space; none is left at
    either end of a line, no line break at either end of the text. Program text loses its
    indentation.

    >>> normalize_whitespace("  one \t two\u3000three  \r\n\r\n \r\n\r\n four\n")
    'one two three\n\nfour'
    """
    text = regex.sub(rf"{SPACE}+", " ", LINE_BREAK.sub("\n", text))
    text = regex.sub(r" ?\n ?", "\n", text)
    return regex.sub(r"\n{3,}", "\n\n", text).strip(" \n")


def remove_stop_words(words: Iterable[str], language: str = "en") -> list[str]:
    """The words but for function words of the language, "en" or "zh", in any case.

    For word counts. A language model learns from function words too (and "not" is one).

    Raises: ValueError — a language without a list. TypeError — a text in place of its words.

    >>> remove_stop_words(["The", "cat", "isn’t", "on", "it"])
    ['cat']
    >>> remove_stop_words(["学习", "的", "目的", "是", "什么"], "zh")
    ['学习', '目的']
    """
    if isinstance(words, str):
        raise TypeError(
            f"remove_stop_words: expected words, got the text {words!r:.40}; "
            "use remove_stop_words_in_text, or cut the text into words first"
        )
    is_kept = _not_a_stop_word(language)
    return [word for word in words if is_kept(word)]


def remove_stop_words_in_text(text: str, language: str = "en") -> str:
    """The text without the words that `remove_stop_words` removes; all other signs stay.

    A word here is what letters, digits, apostrophes and hyphens hold together: state-of-the-art is
    one word. The spaces before a removed word go with it, or else those behind it.
    Chinese needs a space between words, as segmenters write it: a run of Han characters counts as
    one word and stays whole. To cut function words out of a run would ruin others: 的 is the second
    half of 目的, "aim".

    Raises: ValueError — a language without a list.

    >>> remove_stop_words_in_text("The cat (a tabby) sat on it, didn't it? State-of-the-art.")
    'cat (tabby) sat,? State-of-the-art.'
    >>> remove_stop_words_in_text("学习 的 目的 是 什么？", "zh")
    '学习 目的？'
    """
    is_kept = _not_a_stop_word(language)

    def replacement(match: regex.Match[str]) -> str:
        return match[0] if is_kept(match[1]) else ""

    text = regex.sub(rf"(?<!{SPACE}){SPACE}++({WORD})", replacement, text)
    # A mark must not fall to the sign before the word: "=a \u0338" would become "≠".
    return regex.sub(rf"({WORD}){SPACE}*(?!\p{{M}})", replacement, text)


def _not_a_stop_word(language: str) -> Callable[[str], bool]:
    if language not in STOP_WORDS:
        raise ValueError(
            f"stop words: expected a language of {', '.join(STOP_WORDS)}, got {language!r}; "
            "filter the words of another by a list of your own"
        )
    stop_words = STOP_WORDS[language]
    return lambda word: word.lower().replace("’", "'") not in stop_words


def clean(
    text: str,
    *,
    form: str = "NFC",
    html: bool = False,
    lower: bool = False,
    stop_words: str | None = None,
) -> str:
    r"""The text prepared for a corpus.

    In this order: `strip_html` if asked, `remove_control`, `normalize_unicode` (now that nothing
    invisible stands between a letter and its accent), lower case and `normalize_unicode` again
    (J and a caron have no common character, j and a caron have), `remove_stop_words_in_text` of
    the language `stop_words`, `normalize_whitespace` (which takes up the spaces of all before it).
    Without `html`, cleaning twice is cleaning once.

    Raises: ValueError — an unknown form or language.

    >>> clean("<h1>The  Cafe&#769;</h1>It&rsquo;s open.", html=True, lower=True, stop_words="en")
    'café\nopen.'
    """
    if html:
        text = strip_html(text)
    text = normalize_unicode(remove_control(text), form)
    if lower:
        text = normalize_unicode(text.lower(), form)
    if stop_words is not None:
        text = remove_stop_words_in_text(text, stop_words)
    return normalize_whitespace(text)

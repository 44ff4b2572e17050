// Words of the page. The English ones are the keys; {0} is filled in. Data is never translated.

const CHINESE = {
  "evaluations": "评测", "round": "轮次", "before": "训练前", "after": "训练后", "difference": "差异", "better": "变好", "worse": "变差",
  "Before and after training": "训练前后", "Mean rewards of held-out items, by `lrq evaluate`.": "留出条目的平均奖励，由 `lrq evaluate` 得出。",
  "Tasks at work": "进行中的任务",
  "Overview": "概览", "Items": "条目", "Label": "标注", "All runs": "全部运行", "Pages of the run": "本次运行的页面",
  "language": "语言", "light or dark": "明暗主题", "keys": "快捷键", "Keys": "快捷键", "Close": "关闭", "Summing up …": "汇总中…", "Loading …": "加载中…",
  "This page cannot be shown": "无法显示此页", "next and previous": "下一个、上一个", "open": "打开", "search": "搜索",
  "put this response on the right; with Shift on the left": "将该回答放到右侧；加 Shift 放到左侧",
  "document": "文档", "overview, items": "概览、条目", "one level up": "返回上一级", "theme, language": "主题、语言",
  "the left, the right one is better": "左边更好、右边更好", "a tie": "不分上下", "skip": "跳过", "take the last label back": "撤回上一个标注",
  "Runs": "运行", "There is no run yet: `lrq run FILE` makes one.": "还没有运行：用 `lrq run FILE` 开始。",
  "items": "条目", "rows": "训练行", "calls": "调用", "money": "费用", "{0} of {1} items": "{1} 个条目中的 {0} 个",
  "active": "进行中", "done": "完成", "paused": "已暂停", "stopped": "已停止", "failed": "失败", "judging": "评判中", "unjudged": "待评判",
  "sampling": "采样中", "unsampled": "待采样", "aggregating": "汇总中", "claimed": "已登记", "sent": "已发送", "unknown": "结果未知", "waiting": "等待", "running": "运行中", "nothing": "无",
  "Print": "打印", "Charts show {0} of {1} items, spread evenly over the run.": "图表显示 {1} 个条目中均匀抽取的 {0} 个。",
  "responses": "回答", "mean reward": "平均奖励", "mean margin": "平均差距", "cached tokens": "缓存词元", "unpriced": "未定价",
  "mean {0}, median {1}, {2} values": "均值 {0}，中位数 {1}，共 {2} 个", "{0}: mean {1}, median {2}, {3} values": "{0}：均值 {1}，中位数 {2}，共 {3} 个",
  "{0} unscored": "{0} 个未评分", "{0} not applicable": "{0} 个不适用", "reward": "奖励", "margin": "差距", "margin of chosen over rejected": "选中与落选的差距",
  "Scores": "得分", "Nothing is scored yet.": "尚无得分。", "Each bar counts responses, and opens the items that they belong to.": "每根柱子统计回答数；点击可打开这些回答所属的条目。",
  "Correlation {0}. Near 1, the reward may pay for length.": "相关系数 {0}。接近 1 时，奖励可能只是在奖励长度。",
  "Reward against length": "奖励与长度", "Reward against characters of the response": "奖励与回答字符数", "characters of the response →": "回答字符数 →",
  "How dimensions agree": "各维度的一致性", "Pearson's correlation over responses.": "按回答计算的皮尔逊相关。", "Relations": "关系",
  "Agreement with people": "与人工标注的一致性", "{0} labels, {1} of them ties.": "{0} 个标注，其中 {1} 个平局。", "by": "依据", "agree": "一致", "95 % interval": "95 % 区间", "labels": "标注", "margins {0} to {1}": "差距 {0} 至 {1}",
  "Training": "训练", "Training of {0} rows in round {1}: {2}": "第 {1} 轮，{0} 行训练：{2}", "round {0}, training {1}": "第 {0} 轮，训练 {1}",
  "loss": "损失", "accuracy": "准确率", "reward of chosen": "选中的奖励", "reward of rejected": "落选的奖励", "gradient norm": "梯度范数", "learning rate": "学习率", "tokens a second": "每秒词元",
  "Cost and time by stage": "各阶段的费用与时间", "Prompt caches saved {0}.": "提示缓存节省了 {0}。", "stage": "阶段", "re-asks": "重问", "waited in all": "总等待", "median": "中位数", "95th percentile": "95 分位",
  "unscored": "未评分", "failed items": "失败条目", "no row": "无训练行", "rejected lines": "被拒绝的行", "Errors": "错误", "what": "类别", "how many": "数量", "why": "原因",
  "None: every line was used and every score was given.": "没有：每一行都已使用，每个得分都已给出。",
  "{0} found": "找到 {0} 个", "this file holds {0} of {1} items": "此文件含 {1} 个条目中的 {0} 个", "No item is like this.": "没有这样的条目。", "words, or bounds like margin<0.5 faithfulness>=8": "词语，或条件如 margin<0.5 faithfulness>=8", "Search": "搜索", "try": "试试",
  "item": "条目", "best": "最高", "worst": "最低", "disagreement": "分歧", "Pages of the list": "列表页", "← previous (p)": "← 上一页 (p)", "next (n) →": "下一页 (n) →", "{0} to {1} of {2}": "第 {0} 至 {1}，共 {2}",
  "Document": "文档", "{0} characters": "{0} 个字符", "↑ earlier": "↑ 前文", "↓ later": "↓ 后文", "The document is too long for this file; passages stand with the evidence.": "文档过长，未放入此文件；证据处附有段落。",
  "margin {0}": "差距 {0}", "Items beside": "相邻条目", "← previous": "← 上一个", "next →": "下一个 →", "{0} of {1}": "{0} / {1}", "Question": "问题", "This item has no question.": "此条目没有问题。",
  "Document, {0} characters (d)": "文档，{0} 个字符 (d)", "reference answer": "参考答案", "prompt {0} {1}": "提示 {0} {1}", "prompt {0}": "提示 {0}",
  "n/a": "不适用", "not applicable": "不适用", "show on the left": "放到左侧", "show on the right": "放到右侧", "chosen": "选中", "rejected": "落选", "cut": "截断", "by max_new_tokens": "因 max_new_tokens", "no text": "无文本",
  "response": "回答", "characters": "字符", "show": "显示", "Responses": "回答", "There is no response yet.": "还没有回答。", "all beside each other": "全部并排", "Side by side": "并排比较", "what only one of them says is marked": "只在一方出现的内容已标出",
  "points it hardly mentions": "几乎没有提到的要点", "Found by comparing words, not by the judge.": "由词语比对得出，并非评判模型所言。", "all that was written": "完整输出", "response {0}": "回答 {0}",
  "For all responses": "适用于所有回答", "{0} calls, {1} asked again, {2}": "{0} 次调用，{1} 次重问，{2}", "re-ask {0}": "第 {0} 次重问", "call": "调用", "for": "用途", "model": "模型", "state": "状态", "prompt": "提示", "cached": "缓存", "reply": "回复", "seconds": "用时", "words": "内容", "Calls": "调用",
  "statements": "陈述", "comparisons": "比较", "matrix": "胜负矩阵", "extraction": "提取", "texts": "文本数", "votes": "投票", "spread": "离散度", "criteria": "标准", "statements left out": "未检查的陈述", "passages left out": "未查看的段落",
  "{0} against {1}": "{0} 对 {1}", "found": "找到", "nothing found": "未找到", "show in the document, {0} to {1}": "在文档中显示，{0} 至 {1}", "passages ({0})": "段落（{0}）", "the judge's reasoning": "评判的思考", "asked {0} times": "问了 {0} 次", "the judge's words": "评判的原话",
  "How often the response of the row beats that of the column.": "行中的回答胜过列中回答的比率。", "Fully supported": "完全支持", "Partially supported": "部分支持", "No support": "不支持", "name": "名称", "table": "表格",
  "This viewer only reads; `lrq label RUN` takes labels.": "此查看器只读；用 `lrq label RUN` 标注。", "{0}: {1} labelled, {2} to go": "{0}：已标 {1}，剩余 {2}", "There is no pair left to compare.": "没有可比较的了。", "this one is better": "这个更好", "Which answer is better?": "哪个回答更好？", "Left": "左", "Right": "右", "Space": "空格",
};

let current = "en";

export const language = () => current;

export function setLanguage(name) {
  current = name === "zh" ? "zh" : "en";
}

export function t(words, ...values) {
  const text = current === "zh" && Object.hasOwn(CHINESE, words) ? CHINESE[words] : words;
  return text.replace(/\{(\d)\}/g, (_, n) => String(values[Number(n)]));
}

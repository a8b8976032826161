import { Command } from "commander";
import { describe, expect, test } from "vitest";
import { forVerb, type GenerationOptions, generationOptions } from "./generation-options.ts";

function parse(...args: string[]) {
  const command = generationOptions(new Command(), 256)
    .exitOverride()
    .configureOutput({ writeErr: () => {} });
  return forVerb(command.parse(args, { from: "user" }).opts<GenerationOptions>());
}

test("no options are no settings: defaults are the verb's", () => {
  expect(parse()).toEqual({});
});

test("numbers are numbers, and below zero where that means something", () => {
  expect(parse("--presence-penalty", "-0.5", "--top-k", "40", "--lookup", "7", "--shift")).toEqual({
    presencePenalty: -0.5,
    topK: 40,
    lookup: 7,
    shift: true,
  });
});

test("some are given several times, and are plural for the verb", () => {
  const stops = ["--stop", "a", "--stop", "b", "--stop-token", "7", "--stop-token", "8"];
  expect(parse(...stops, "--dry-breaker", ".")).toEqual({
    stop: ["a", "b"],
    stopTokens: [7, 8],
    dryBreakers: ["."],
  });
});

test("texts can say what a shell makes hard to write", () => {
  expect(parse("--stop", "\\n\\tx\\\\n\\q").stop).toEqual(["\n\tx\\n\\q"]);
});

test("a bias is of an id, of a text, or of a text in quotes; −inf bans", () => {
  const given = ["13=-2", '"13"=1', "a=b=0.5", "x=-inf", '"say ""=1', "\\n=3"];
  expect(parse(...given.flatMap((bias) => ["--logit-bias", bias])).logitBias).toEqual([
    [13, -2],
    ["13", 1],
    ["a=b", 0.5],
    ["x", Number.NEGATIVE_INFINITY],
    ['say "', 1],
    ["\n", 3],
  ]);
});

describe("refused, with what is needed", () => {
  test.each([
    ["--lookup", "8", "from 1 to 7"],
    ["--draft-tokens", "0", "from 1 to 7"],
    ["--dry-base", "0.5", "at least 1"],
    ["--typical", "2", "from 0 to 1"],
    ["--tokens", "many", "a whole number at least 1"],
    ["--presence-penalty", "x", "needs a number, got x"],
    ["--logit-bias", "x", "needs TOKEN=NUMBER or TOKEN=-inf"],
    ["--logit-bias", "x=many", "needs a number, got many"],
    ["--logit-bias", "x=inf", "needs a number, got inf"],
    ["--stop", "", "needs a text"],
  ])("%s %j", (option, value, message) => {
    expect(() => parse(option, value)).toThrow(message);
  });
});

test("help says where the text ends, how tokens are drawn, and what makes it faster", () => {
  const help = generationOptions(new Command(), 256).helpInformation();
  expect(help.match(/^\w.*:$/gm)).toEqual([
    "Where it ends:",
    "How tokens are drawn, in this order:",
    "Speed, with the same text:",
    "Speed, with little change of the text:",
    "Options:",
  ]);
});

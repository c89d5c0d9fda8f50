// SPDX-License-Identifier: GPL-2.0
/* A module with unit tests that end in each way there is. */
#include <kunit/test.h>
#include <linux/module.h>

static void passes(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, 1, 1);
}

static void fails(struct kunit *test)
{
	int one = 1;

	KUNIT_EXPECT_EQ(test, one, 2);
}

static void skips(struct kunit *test)
{
	kunit_skip(test, "no such device here");
}

static const int numbers[] = { 1, 2 };

static void describe(const int *number, char *text)
{
	snprintf(text, KUNIT_PARAM_DESC_SIZE, "number %d", *number);
}

KUNIT_ARRAY_PARAM(numbers, numbers, describe);

static void fails_with_two(struct kunit *test)
{
	const int *number = test->param_value;

	KUNIT_EXPECT_LT(test, *number, 2);
}

static struct kunit_case units_cases[] = {
	KUNIT_CASE(passes),
	KUNIT_CASE(fails),
	KUNIT_CASE(skips),
	KUNIT_CASE_PARAM(fails_with_two, numbers_gen_params),
	{}
};

static struct kunit_suite units_suite = {
	.name = "units",
	.test_cases = units_cases,
};

kunit_test_suite(units_suite);

MODULE_DESCRIPTION("Unit tests that end in each way");
MODULE_LICENSE("GPL");

package views

import (
	"testing"
	"time"

	"spacehost/quota"
)

func TestAdviceInWords(t *testing.T) {
	const s = time.Second
	april := quota.Tier{Name: "free", Quota: 210 * s}
	october := quota.Tier{Name: "free", Quota: 300 * s, Runs: 8}
	usage := quota.Usage{Space: "demo", Task: "image", Factor: 1, Calls: 12, Declared: 60 * s, Longest: 3 * s, Mean: 3 * s}
	change := func(alter func(*quota.Usage)) quota.Usage {
		u := usage
		alter(&u)
		return u
	}
	for name, row := range map[string]struct {
		advisor Advisor
		usage   quota.Usage
		want    string
	}{
		"a shorter one": {Advisor{Free: april}, usage,
			"image: 12 calls, declared 60 s, used 3.0 s at most; declare 5: the day of a free visitor (210 s) has room for 42 calls at a time instead of 3, and 69 one after another instead of 51"},
		"with runs": {Advisor{Free: october}, usage,
			"image: 12 calls, declared 60 s, used 3.0 s at most; declare 5: the day of a free visitor (300 s, 8 runs) has room for 8 calls at a time instead of 5"},
		"no gain because of runs": {Advisor{Free: october}, change(func(u *quota.Usage) { u.Declared = 30 * s }),
			"image: 12 calls, declared 30 s, used 3.0 s at most; declare 5: less is held while a call runs"},
		"xlarge": {Advisor{Free: april}, change(func(u *quota.Usage) { u.Factor = 2 }),
			"image: 12 calls, declared 60 s, used 3.0 s at most; declare 5: the day of a free visitor (210 s) has room for 21 calls at a time instead of 1, and 34 one after another instead of 16"},
		"refused so far": {Advisor{Free: april}, change(func(u *quota.Usage) { u.Declared = 300 * s }),
			"image: 12 calls, declared 300 s, used 3.0 s at most; declare 5: the day of a free visitor (210 s) has room for 42 calls at a time instead of 0, and 69 one after another instead of 0"},
		"on an RTX PRO 6000": {Advisor{Free: april, Factor: 1.5}, change(func(u *quota.Usage) { u.Declared = 90 * s }),
			"image: 12 calls, declared 60 s (holds 90 s on this hardware), used 3.0 s at most; declare 5: the day of a free visitor (210 s) has room for 28 calls at a time instead of 2, and 68 one after another instead of 41"},
		"a few milliseconds": {Advisor{Free: april}, change(func(u *quota.Usage) { u.Longest, u.Mean = s/100, s/1000 }),
			"image: 12 calls, declared 60 s, used 0.0 s at most; declare 5: the day of a free visitor (210 s) has room for 42 calls at a time instead of 3"},
		"near a whole quota": {Advisor{Free: april}, change(func(u *quota.Usage) { u.Declared, u.Longest, u.Mean = 209*s, s, s/1000 }),
			"image: 12 calls, declared 209 s, used 1.0 s at most; declare 5: the day of a free visitor (210 s) has room for 42 calls at a time instead of 1"},
		"the quota of one call": {Advisor{Free: april}, change(func(u *quota.Usage) { u.Declared, u.Longest, u.Mean = 210*s, s, s/1000 }),
			"image: 12 calls, declared 210 s, used 1.0 s at most; declare 5: the day of a free visitor (210 s) has room for 42 calls at a time instead of 1, and 1000 or more one after another instead of 1"},
		"too few": {Advisor{Free: april, Simulated: true}, change(func(u *quota.Usage) { u.Calls = 1 }),
			"image: 1 call, declared 60 s, used 3.0 s at most"},
		"a longer one": {Advisor{Free: april}, change(func(u *quota.Usage) { u.Declared, u.Overstayed = 3*s, 1 }),
			"image: 12 calls, declared 3 s, used 3.0 s at most; 1 call ended at the deadline: declare 5"},
		"simulated": {Advisor{Free: quota.Tier{Unlimited: true}, Simulated: true}, usage,
			"image: 12 calls, declared 60 s, used 3.0 s at most; declare 5: less is held while a call runs. These are seconds of this machine's CPU; a GPU needs others, so measure there before you declare less"},
	} {
		got := row.advisor.advice(row.usage)
		if got.Text != row.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got.Text, row.want)
		}
		if size := map[int]string{1: "large", 2: "xlarge"}[row.usage.Factor]; got.Size != size {
			t.Errorf("%s: size %s, want %s", name, got.Size, size)
		}
	}
}

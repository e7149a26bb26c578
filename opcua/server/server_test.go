package server

import (
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/gopcua/opcua/ua"

	"quorate/opcua/channel"
)

func TestConfigErrorsNameTheField(t *testing.T) {
	none := []channel.SecurityOffer{{PolicyURI: ua.SecurityPolicyURINone, Mode: ua.MessageSecurityModeNone}}
	for _, c := range []struct {
		field string
		spoil func(*Config)
	}{
		{"ApplicationURI", func(c *Config) { c.ApplicationURI = "" }},
		{"Space", func(c *Config) { c.Space = nil }},
		{"Offers", func(c *Config) { c.Offers = nil }},
		{"UserTokens[0]", func(c *Config) { c.UserTokens = []*ua.UserTokenPolicy{{TokenType: ua.UserTokenTypeUserName}} }},
		{"limits: MaxSessions", func(c *Config) { c.Limits.MaxSessions = -1 }},
		{"limits: MinSamplingInterval", func(c *Config) { c.Limits.MinSamplingInterval = -1 }},
		{"MaxChunkSize", func(c *Config) { c.ChannelLimits.MaxChunkSize = 1 }},
	} {
		cfg := Config{ApplicationURI: demoURI, Space: newDemo(t).space, Offers: none}
		c.spoil(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), c.field) {
			t.Errorf("%s: %v", c.field, err)
		}
	}
}

func TestEveryLimitHasADefault(t *testing.T) {
	v := reflect.ValueOf(DefaultLimits)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("%s has no default", v.Type().Field(i).Name)
		}
	}
	l, err := Limits{MaxSessions: 7}.withDefaults()
	if err != nil || l.MaxSessions != 7 || l.MaxSubscriptions != DefaultLimits.MaxSubscriptions {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestSameVariant(t *testing.T) {
	nan := func() *ua.Variant { return ua.MustVariant(math.NaN()) }
	for _, c := range []struct {
		a, b *ua.Variant
		same bool
	}{
		{nil, nil, true},
		{nil, ua.MustVariant(int32(0)), false},
		{ua.MustVariant(int32(1)), ua.MustVariant(int32(1)), true},
		{ua.MustVariant(int32(1)), ua.MustVariant(int64(1)), false},
		{ua.MustVariant("a"), ua.MustVariant("b"), false},
		{nan(), nan(), true},
		{ua.MustVariant(float32(1)), ua.MustVariant(float32(2)), false},
		{ua.MustVariant([]int32{1, 2}), ua.MustVariant([]int32{1, 2}), true},
		{ua.MustVariant([]int32{1, 2}), ua.MustVariant([]int32{1, 3}), false},
		{ua.MustVariant(ua.NewNumericNodeID(1, 2)), ua.MustVariant(ua.NewNumericNodeID(1, 2)), true},
		{ua.MustVariant([]byte("ab")), ua.MustVariant([]byte("ab")), true},
	} {
		if got := sameVariant(c.a, c.b); got != c.same {
			t.Errorf("%v and %v: %v, want %v", c.a, c.b, got, c.same)
		}
	}
}

package main

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// limitRows gives the default and the range of each limit, as docs/configuration.md has them.
func limitRows(l *opcuaLimits) map[string][2]string {
	rows := map[string][2]string{}
	values := reflect.ValueOf(l).Elem()
	for i := range values.NumField() {
		field := values.Type().Field(i)
		least, most := limitRange(field)
		row := [2]string{fmt.Sprint(values.Field(i).Interface()), fmt.Sprintf("%d to %d", least, most)}
		if field.Type == reflect.TypeFor[time.Duration]() {
			row[1] = fmt.Sprintf("%v to %v", time.Duration(least), time.Duration(most))
		}
		rows[limitsKey+field.Tag.Get("koanf")] = row
	}
	return rows
}

// TestEverySettingIsDocumented compares docs/configuration.md with the settings, both ways: keys, defaults, and the ranges of limits.
func TestEverySettingIsDocumented(t *testing.T) {
	document, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	defaults := defaultSettings(false)
	values, limits := defaults.effective(), limitRows(&defaults.OPCUA.Limits)
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|([^|]*)\\|([^|]*)\\|.+\\|$").FindAllStringSubmatch(string(document), -1) {
		key, byDefault, allowed := row[1], strings.Trim(row[2], "` "), strings.TrimSpace(row[3])
		if documented[key] {
			t.Errorf("%s is listed twice", key)
		}
		documented[key] = true
		if want := fmt.Sprint(values[key]); byDefault != want && want != "" {
			t.Errorf("%s: the default is listed as %q, it is %q", key, byDefault, want)
		}
		if want, ok := limits[key]; ok && allowed != want[1] {
			t.Errorf("%s: the range is listed as %q, it is %q", key, allowed, want[1])
		}
	}
	if want, got := sortedKeys(settingKeys()), slices.Sorted(maps.Keys(documented)); !slices.Equal(got, want) {
		t.Errorf("docs/configuration.md lists %v, the settings are %v", got, want)
	}
}

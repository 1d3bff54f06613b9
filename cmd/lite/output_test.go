package main

import (
	"bytes"
	"testing"
)

func TestJSONIsForPeople(t *testing.T) {
	var out bytes.Buffer
	if err := writeJSON(&out, map[string]string{"remedy": "take <this> & that"}); err != nil {
		t.Fatal(err)
	}
	if want := "{\n  \"remedy\": \"take <this> & that\"\n}\n"; out.String() != want {
		t.Errorf("got %s", &out)
	}
}
